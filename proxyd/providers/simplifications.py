"""Ladder of simplifications for a refusal that names nothing the rules recognize.

Each rung leaves out one kind of thing that upstreams are known to refuse. Rungs are ordered by how little the request
loses: schemas of tools, optional parameters, thinking, structured output, the choice of a tool, images, the order of
messages. No rung removes a tool or text of the user. What a refusal is about restricts the rungs: one about messages
does not change the tools.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from proxyd.codecs.translation.schema_styles import in_style
from proxyd.codecs.upstream_errors.error_envelopes import ErrorDetails, parse_error_body
from proxyd.codecs.upstream_errors.errors import ErrorContext, refusal
from proxyd.errors import Refused, TooLong
from proxyd.providers.refusals import QuirkChange, content_parts, messages_of, status_of_refusal

__all__ = ["simplification"]

_MAX_JUDGED_CHARS = 2000
#: A failure of the server whose text shows that the request caused it.
_ABOUT_REQUEST = re.compile(
    r"jinja|chat.?template|grammar|json.?schema|invalid (?:request|param|argument)|unsupported|not supported"
    r"|validation error|unexpected keyword|unrecogni[sz]ed|extra inputs|not permitted",
    re.IGNORECASE,
)
_ABOUT_SERVER = re.compile(r"\bcuda\b|out of memory|\bnccl\b|\bengine\b.{0,20}\bdead\b", re.IGNORECASE)
#: Refusals that no simplification changes: of the content, the account, or a model that is not there.
_FINAL = re.compile(
    r"safety|policy|content.?filter|moderation|inappropriate|sensitive|risk|violat|not allowed to (?:sample|access)"
    r"|api.?key|credential|unauthori[sz]ed|permission|quota|billing|balance|credit|rate limit|overloaded"
    r"|\bmodel\b.{0,80}(?:not (?:exist|found)|does not exist|unknown|unavailable|deprecated|retired)"
    r"|unknown model|no such model|context (?:length|window)|too (?:long|large|many tokens)"
    # Tools that the model does not take are never left out.
    r"|\bmodel (?:\S{1,60} )?is not supported|tool calls? (?:is|are) not supported"
    r"|support tool use|enable-auto-tool-choice|(?:not|n't) support (?:tools|function.?calling)\b",
    re.IGNORECASE,
)
_ABOUT_TOOLS = re.compile(r"\btools?\b|\bfunctions?\b|schema|\bparameters\b|工具|函数", re.IGNORECASE)
_ABOUT_MESSAGES = re.compile(
    r"\bmessages?\b|\broles?\b|\bcontents?\b|\bconversation\b|消息|角色|对话", re.IGNORECASE
)
#: OpenRouter's 404 for a request that none of its providers takes.
_NO_PROVIDER = re.compile(r"no endpoints found|requested parameters|no provider", re.IGNORECASE)

#: Schema styles of the ladder.
_STYLES = ("common", "plain")

_Rung = tuple[QuirkChange, ...]


def simplification(
    status: int,
    body: bytes,
    sent: Mapping[str, Any],
    known: Mapping[str, Any],
    settled: Mapping[str, Any],
    tries_left: int,
) -> QuirkChange | None:
    """Return the next simplification of a request that was refused, as one change; None where there is none.

    Args:
        status: the upstream's.
        body: the upstream's response.
        sent: the body of the request that was refused.
        known: quirks that were in force for it.
        settled: quirks of the entry, which stay.
        tries_left: retries that this call has left; the last one takes all rungs that remain.
    """
    if tries_left < 1:
        return None
    error = parse_error_body(body)
    if not _may_simplify(status, body, error):
        return None
    text = f"{error.param[:_MAX_JUDGED_CHARS]} {error.message[:_MAX_JUDGED_CHARS]}"
    rungs = []
    for rung in _rungs(sent, text, known.get("schema_style")):
        changes = tuple(
            each
            for each in rung
            if each.quirk not in settled and not (each.quirk in known and known[each.quirk] == each.value)
        )
        if changes:
            rungs.append(changes)
    # The first step, which loses least and helps most often, is tried alone.
    count = 1 if tries_left > 2 else max(1, len(rungs) // tries_left)
    taken = [change for rung in rungs[:count] for change in rung]
    return QuirkChange(taken[0].quirk, taken[0].value, tuple(taken[1:])) if taken else None


def _may_simplify(status: int, body: bytes, error: ErrorDetails) -> bool:
    message = error.message[:_MAX_JUDGED_CHARS]
    if not message.strip() or _FINAL.search(message):
        return False
    status = status_of_refusal(status, error)
    if status == 500:
        return _ABOUT_REQUEST.search(message) is not None and not _ABOUT_SERVER.search(message)
    if status == 404:
        return _NO_PROVIDER.search(message) is not None
    if status not in (400, 422):
        return False
    judged = refusal(status, {}, body, ErrorContext())
    if not isinstance(judged, Refused) or isinstance(judged, TooLong) or judged.status != 400:
        return False
    # The codec begins its messages for content filters and unreadable images so.
    return not judged.message.startswith(("Output blocked", "Could not process image"))


def _rungs(sent: Mapping[str, Any], text: str, known: Any) -> Iterator[_Rung]:
    about_tools, about_messages = bool(_ABOUT_TOOLS.search(text)), bool(_ABOUT_MESSAGES.search(text))
    is_open = about_tools == about_messages
    if is_open or about_tools:
        yield from _of_tools(sent, known)
    if is_open:
        yield from _of_parameters(sent)
    if is_open or about_tools:
        yield from _of_tool_choice(sent)
    if is_open or about_messages:
        yield from _of_messages(sent)


def _of_tools(sent: Mapping[str, Any], known: Any) -> Iterator[_Rung]:
    functions = [tool.get("function") for tool in sent.get("tools") or () if isinstance(tool, Mapping)]
    schemas = [function.get("parameters") for function in functions if isinstance(function, Mapping)]
    # A style that was tried is not tried again after a simpler one.
    for style in _STYLES[_STYLES.index(known) + 1 if known in _STYLES else 0 :]:
        if any(isinstance(schema, dict) and in_style(schema, style) != schema for schema in schemas):
            yield (QuirkChange("schema_style", style),)


def _of_parameters(sent: Mapping[str, Any]) -> Iterator[_Rung]:
    optional = [
        QuirkChange(name, False)
        for name in ("parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier")
        if name in sent
    ]
    if any(name in sent for name in ("temperature", "top_p", "top_k")):
        optional.append(QuirkChange("sampling", []))
    if "stop" in sent:
        optional.append(QuirkChange("stop_limit", 0))
    yield tuple(optional)
    thinking = []
    if "reasoning_effort" in sent or "reasoning" in sent:
        thinking.append(QuirkChange("effort_path", None))
    has_switch = isinstance(sent.get("reasoning"), Mapping) and "enabled" in sent["reasoning"]
    if has_switch or any(name in sent for name in ("thinking", "enable_thinking", "chat_template_kwargs")):
        thinking.append(QuirkChange("thinking_path", None))
    if "thinking_budget" in sent:
        thinking.append(QuirkChange("budget_path", None))
    yield tuple(thinking)
    if "response_format" in sent:
        yield (QuirkChange("response_format", "none"),)


def _of_tool_choice(sent: Mapping[str, Any]) -> Iterator[_Rung]:
    if sent.get("tool_choice") not in (None, "auto", "none"):
        yield (QuirkChange("named_tool_choice", False), QuirkChange("required_word", "auto"))


def _of_messages(sent: Mapping[str, Any]) -> Iterator[_Rung]:
    messages = messages_of(sent)
    roles = [message.get("role") for message in messages]
    parts = list(content_parts(sent))
    order = []
    if "developer" in roles:
        order.append(QuirkChange("system_role", "system"))
    if "system" in roles[1:]:
        order.append(QuirkChange("leading_system_only", True))
    if any(first == second != "tool" for first, second in itertools.pairwise(roles)):
        order.append(QuirkChange("strict_alternation", True))
    yield tuple(order)
    yield tuple(_shapes_of(messages))
    if any("cache_control" in part for part in parts):
        yield (QuirkChange("cache_control", False),)
    if any(
        name in message
        for message in messages
        for name in ("reasoning_content", "reasoning", "reasoning_details")
    ):
        yield (QuirkChange("reasoning_return", "none"),)
    if any("reasoning_item" in message for message in messages):
        yield (QuirkChange("reasoning_items", "none"),)
    kinds = {part.get("type") for part in parts}
    images = [QuirkChange("vision", False)] if "image_url" in kinds else []
    if "file" in kinds:
        images.append(QuirkChange("files", False))
    yield tuple(images)


def _shapes_of(messages: list[Mapping[str, Any]]) -> Iterator[QuirkChange]:
    """Yield what makes messages with tool calls, and results, what every template takes."""
    calling = [message for message in messages if message.get("tool_calls")]
    if any(message.get("content") is None for message in calling):
        yield QuirkChange("empty_content", "")
    if any(len(message["tool_calls"]) > 1 for message in calling):
        yield QuirkChange("one_call_per_message", True)
    if any(message.get("role") == "tool" and "name" not in message for message in messages):
        yield QuirkChange("tool_message_names", True)
