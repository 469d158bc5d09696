"""The formats in which models write tool calls into the text (docs/spec/chat-to-messages.md#text-tool-calls).

A pattern is literal text, except for ``~`` (white space or none), ``{name}`` (the name of an offered tool), ``{word}``
(an id), ``{channels}`` (words of gpt-oss's channels, or none), and ``@``, where the body begins if not at the end.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

__all__ = ["FORMATS", "Body", "CallFormat", "ParameterSyntax"]


class Body(enum.Enum):
    """What follows the opening."""

    CALL = enum.auto()  # one object with the name and the arguments
    ARGUMENTS = enum.auto()  # the object of the arguments
    PARAMETERS = enum.auto()  # one element for each argument


@dataclass(frozen=True, slots=True)
class ParameterSyntax:
    """How the arguments are written one by one.

    Args:
        begins: the texts with which the body can begin; the last one ends a call without arguments.
        item: one argument, with the groups ``key``, ``value`` and perhaps ``string``, "false" for a value in JSON.
        end: the end of the body, after the last argument.
    """

    begins: tuple[str, ...]
    item: re.Pattern[str]
    end: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class CallFormat:
    """One format.

    Args:
        openings: patterns before the body.
        again: patterns before the body of a further call, beside the openings.
        closings: texts after a call that are dropped.
        end: the closing up to which other text after the call is dropped, if it is near.
        is_alone: the calls are the whole message, so that other text after them makes them text.
    """

    name: str
    body: Body
    openings: tuple[str, ...]
    again: tuple[str, ...] = ()
    closings: tuple[str, ...] = ()
    end: str = ""
    syntax: ParameterSyntax | None = None
    is_alone: bool = False


def _tags(item: str, value_end: str, next_item: str, end: str) -> ParameterSyntax:
    """Return the syntax of arguments in tags: `item` is the pattern up to the value."""
    closed = rf"{re.escape(value_end)}(?=\s{{0,64}}(?:{re.escape(next_item)}|{re.escape(end)}))"
    return ParameterSyntax(
        begins=(next_item, end),
        item=re.compile(rf"\s{{0,64}}{item}(?P<value>.*?){closed}", re.DOTALL),
        end=re.compile(rf"{re.escape(value_end)}\s{{0,64}}{re.escape(end)}"),
    )


_HERMES = CallFormat(
    "Hermes, Qwen 2.5 and 3",
    Body.CALL,
    openings=("<tool_call>~",),
    closings=("}", "</tool_call>", "<|im_end|>"),
    end="</tool_call>",
)
_QWEN_CODER = CallFormat(
    "Qwen3-Coder",
    Body.PARAMETERS,
    openings=("<tool_call>~<function={name}>~", "<function={name}>~"),
    closings=("</tool_call>", "<|im_end|>"),
    syntax=_tags(r"<parameter=(?P<key>[^>\n]{1,200})>", "</parameter>", "<parameter=", "</function>"),
)
_GLM = CallFormat(
    "GLM",
    Body.PARAMETERS,
    openings=("<tool_call>~{name}~",),
    syntax=_tags(
        r"<arg_key>\s*(?P<key>[^<]{1,200}?)\s*</arg_key>\s*<arg_value>",
        "</arg_value>",
        "<arg_key>",
        "</tool_call>",
    ),
)
_LLAMA = CallFormat(
    "Llama, with its tag",
    Body.CALL,
    openings=("<|python_tag|>~",),
    again=(";~",),
    closings=("}", "<|eom_id|>", "<|eot_id|>"),
)
_LLAMA_FUNCTION = CallFormat(
    "Llama, with the name in a tag",
    Body.ARGUMENTS,
    openings=("<function={name}>~",),
    closings=("}", "</function>", "<|eom_id|>", "<|eot_id|>"),
    end="</function>",
)
_BARE_BEGINNINGS = tuple(
    f'{{~{kind}"name"~:~"{{name}}"~,~"{key}"~:'
    for kind in ("", '"type"~:~"function"~,~')
    for key in ("parameters", "arguments")
)
_BARE = CallFormat(
    "Llama, bare JSON",
    Body.CALL,
    openings=tuple(f"@{beginning}" for beginning in _BARE_BEGINNINGS),
    again=tuple(f";~@{beginning}" for beginning in _BARE_BEGINNINGS),
    closings=("<|eom_id|>", "<|eot_id|>"),
    is_alone=True,
)
_MISTRAL = CallFormat(
    "Mistral, since its tokenizer v11",
    Body.ARGUMENTS,
    openings=(
        "[TOOL_CALLS]~{name}~",
        "[TOOL_CALLS]~{name}~[ARGS]~",
        "[TOOL_CALLS]~{name}~[CALL_ID]~{word}~[ARGS]~",
    ),
    closings=("}", "</s>"),
)
_MISTRAL_LIST = CallFormat(
    "Mistral, before",
    Body.CALL,
    openings=("[TOOL_CALLS]~[~", "[TOOL_CALLS]~"),
    again=(",~",),
    closings=("}", "]", "</s>"),
)
_GPT_OSS = CallFormat(
    "gpt-oss",
    Body.ARGUMENTS,
    openings=tuple(
        f"{start}{{channels}}to={namespace}{{name}}{{channels}}<|message|>~"
        for start in ("<|channel|>", "<|start|>assistant")
        for namespace in ("functions.", "")
    ),
    closings=("}", "<|call|>", "<|end|>"),
    end="<|call|>",
)


def _deepseek(bar: str) -> CallFormat:
    begin, separator = f"<{bar}tool▁call▁begin{bar}>~", f"~<{bar}tool▁sep{bar}>~"
    calls = (
        f"{begin}function{separator}{{name}}~```json~",
        f"{begin}{{name}}{separator}",
    )
    return CallFormat(
        f"DeepSeek R1 to V3.1, with {bar}",
        Body.ARGUMENTS,
        openings=(*(f"<{bar}tool▁calls▁begin{bar}>~{call}" for call in calls), *calls),
        closings=("}", "```", f"<{bar}tool▁call▁end{bar}>", f"<{bar}tool▁calls▁end{bar}>"),
        end=f"<{bar}tool▁call▁end{bar}>",
    )


_KIMI_CALLS = tuple(
    f"<|tool_call_begin|>~{namespace}{{name}}{number}~<|tool_call_argument_begin|>~"
    for namespace in ("functions.", "")
    for number in (":{word}", "")
)
_KIMI = CallFormat(
    "Kimi K2",
    Body.ARGUMENTS,
    openings=(*(f"<|tool_calls_section_begin|>~{call}" for call in _KIMI_CALLS), *_KIMI_CALLS),
    closings=("}", "<|tool_call_end|>", "<|tool_calls_section_end|>"),
    end="<|tool_call_end|>",
)
_MINIMAX = CallFormat(
    "MiniMax M2",
    Body.PARAMETERS,
    openings=('<minimax:tool_call>~<invoke name="{name}">~',),
    again=('<invoke name="{name}">~',),
    closings=("</minimax:tool_call>",),
    syntax=_tags(
        r'<parameter name="(?P<key>[^"\n]{1,200})">', "</parameter>", "<parameter name=", "</invoke>"
    ),
)
_DSML = CallFormat(
    "DeepSeek V3.2",
    Body.PARAMETERS,
    openings=(
        '<｜DSML｜function_calls>~<｜DSML｜invoke name="{name}">~',
        '<｜DSML｜tool_calls>~<｜DSML｜invoke name="{name}">~',
    ),
    again=('<｜DSML｜invoke name="{name}">~',),
    closings=("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"),
    syntax=_tags(
        r'<｜DSML｜parameter name="(?P<key>[^"\n]{1,200})"(?: string="(?P<string>true|false)")?>',
        "</｜DSML｜parameter>",
        "<｜DSML｜parameter name=",
        "</｜DSML｜invoke>",
    ),
)

#: In the order in which they are tried.
FORMATS: tuple[CallFormat, ...] = (
    _HERMES,
    _QWEN_CODER,
    _GLM,
    _LLAMA,
    _LLAMA_FUNCTION,
    _BARE,
    _MISTRAL,
    _MISTRAL_LIST,
    _GPT_OSS,
    _deepseek("｜"),
    _deepseek("|"),
    _KIMI,
    _MINIMAX,
    _DSML,
)
