"""Texts in which tool calls are written in each format, for the tests of their recognition."""

from __future__ import annotations

from typing import Any

from proxyd.codecs.translation.offered_tools import OfferedTools

__all__ = ["CALLS", "TOOLS", "offered"]

TOOLS: dict[str, Any] = {
    "Bash": {
        "type": "object",
        "properties": {
            "command": {"type": "string"},
            "timeout": {"type": "integer"},
            "run_in_background": {"type": "boolean"},
        },
        "required": ["command"],
        "additionalProperties": False,
    },
    "BashOutput": {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]},
    "TaskList": {"type": "object", "properties": {}},
    "TodoWrite": {
        "type": "object",
        "properties": {"todos": {"type": "array", "items": {"type": "object"}}},
        "required": ["todos"],
    },
}


def offered() -> OfferedTools:
    """The tools of these tests."""
    return OfferedTools(TOOLS)


_LS = '{"command": "ls <a>"}'
#: Format -> a text with one call of Bash with the command ``ls <a>``, as the model ends it.
CALLS: dict[str, str] = {
    "hermes": f'<tool_call>\n{{"name": "Bash", "arguments": {_LS}}}\n</tool_call>',
    "hermes, arguments first": f'<tool_call>{{"arguments": {_LS}, "name": "Bash"}}</tool_call>',
    "hermes, without its end": f'<tool_call>\n{{"name": "Bash", "arguments": {_LS}}}',
    "qwen coder": "<tool_call>\n<function=Bash>\n<parameter=command>\nls <a>\n</parameter>\n</function>\n</tool_call>",
    "qwen coder, without its beginning": (
        "<function=Bash>\n<parameter=command>\nls <a>\n</parameter>\n</function>\n</tool_call>"
    ),
    "glm": "<tool_call>Bash\n<arg_key>command</arg_key>\n<arg_value>ls <a></arg_value>\n</tool_call>",
    "llama": f'<|python_tag|>{{"name": "Bash", "parameters": {_LS}}}<|eom_id|>',
    "llama, name in a tag": f"<function=Bash>{_LS}</function>",
    "llama, bare": f'{{"name": "Bash", "parameters": {_LS}}}',
    "llama, bare with a type": f'{{"type": "function", "name": "Bash", "parameters": {_LS}}}',
    "mistral": f"[TOOL_CALLS]Bash{_LS}",
    "mistral, with a mark": f"[TOOL_CALLS]Bash[ARGS]{_LS}",
    "mistral, with an id": f"[TOOL_CALLS]Bash[CALL_ID]aB3dE6gH9[ARGS]{_LS}",
    "mistral, before": f'[TOOL_CALLS] [{{"name": "Bash", "arguments": {_LS}}}]',
    "gpt-oss": f"<|channel|>commentary to=functions.Bash <|constrain|>json<|message|>{_LS}<|call|>",
    "gpt-oss, recipient first": (
        f"<|start|>assistant to=functions.Bash<|channel|>commentary json<|message|>{_LS}<|call|>"
    ),
    "deepseek r1": (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>Bash\n```json\n"
        f"{_LS}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek v3.1": (
        f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>Bash<｜tool▁sep｜>{_LS}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    ),
    "deepseek v3.1, ascii": f"<|tool▁calls▁begin|><|tool▁call▁begin|>Bash<|tool▁sep|>{_LS}<|tool▁call▁end|>",
    "deepseek v3.2": (
        '<｜DSML｜function_calls>\n<｜DSML｜invoke name="Bash">\n<｜DSML｜parameter name="command" string="true">'
        "ls <a></｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>"
    ),
    "kimi": (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.Bash:0<|tool_call_argument_begin|>"
        f"{_LS}<|tool_call_end|><|tool_calls_section_end|>"
    ),
    "minimax": (
        '<minimax:tool_call>\n<invoke name="Bash">\n<parameter name="command">ls <a></parameter>\n</invoke>\n'
        "</minimax:tool_call>"
    ),
}
