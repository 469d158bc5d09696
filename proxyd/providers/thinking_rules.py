"""Rules for refusals of thinking: its switch, its effort and budget, and reasoning of earlier turns.

A rule takes a `Refusal` and returns the quirk that avoids it, or None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from proxyd.providers.refusals import UNKNOWN, QuirkChange, Refusal, messages_of

__all__ = [
    "asks_to_think",
    "budget",
    "effort",
    "reasoning_history",
    "signed_data",
    "thinking",
    "value_to_send",
]

#: Levels of effort by rising cost, `Dialect.efforts`.
_LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_ANY_LEVEL = rf"\b(?:{'|'.join(_LEVELS)})\b"

#: Parameters for which a refusal may say which value to send.
_VALUE_PARAMS = ("reasoning_effort", "enable_thinking", "parallel_tool_calls")
_VALUE_TO_SEND = re.compile(
    r"\b(?:set|use|send|specify)\s+[`'\"]?([\w.]{1,40})[`'\"]?\s*(?:to|=|:|as)\s*[`'\"]?(\w{1,20})"
    r"|[`'\"]?\b([\w.]{1,40})[`'\"]?\s+(?:parameter )?(?:(?:must|has to|should|needs to) be (?:set to )?"
    r"|is restricted to |can only be (?:set to )?|only supports (?:the value )?|必须(?:设置)?为\s?)[`'\"]?(\w{1,20})",
    re.IGNORECASE,
)

#: Fields of the request that ask for thinking, and what switches each of them off.
_REQUESTS: Mapping[str, str] = {
    "reasoning_effort": "effort_path",
    "reasoning": "thinking_path",
    "thinking": "thinking_path",
    "enable_thinking": "thinking_path",
    "chat_template_kwargs": "thinking_path",
    "thinking_budget": "budget_path",
}
#: A model that does not think at all, in whatever field it was asked to.
_NO_THINKING = re.compile(
    r"(?:not|n't) support (?:parameter )?(?:\w{1,12} )?(?:thinking|reasoning)\b(?![ _.-]?content)"
    r"|\b(?:thinking|reasoning)(?: mode)? is not (?:supported|enabled|available)"
    r"|\bthink value \S{1,12} is not supported|不支持(?:深度)?思考",
    re.IGNORECASE,
)
_BUDGET = re.compile(
    r"\b(?:thinking[._ ]?)?budget[_ ]?tokens|\bthinking[_ ]?budget|\bbudget\b", re.IGNORECASE
)


def asks_to_think(sent: Mapping[str, Any]) -> bool:
    return any(name in sent for name in _REQUESTS)


def _without_thinking(sent: Mapping[str, Any], *, is_lasting: bool = True) -> QuirkChange | None:
    """Return the change that asks for no thinking in any field that was sent."""
    paths = list(dict.fromkeys(path for name, path in _REQUESTS.items() if name in sent))
    if isinstance(sent.get("reasoning"), Mapping) and "effort" in sent["reasoning"]:
        paths.append("effort_path")
    if not paths:
        return None
    return QuirkChange(
        paths[0], None, tuple(QuirkChange(path, None) for path in paths[1:]), is_lasting=is_lasting
    )


def value_to_send(refusal: Refusal) -> QuirkChange | None:
    """Read "set X to Y", "X must be Y" and "X is restricted to Y"."""
    for found in _VALUE_TO_SEND.finditer(refusal.text):
        name = (found[1] or found[3]).rpartition(".")[2]
        word = (found[2] or found[4]).lower()
        if name == "effort":
            name = "reasoning_effort"
        if name not in _VALUE_PARAMS:
            continue
        if name == "reasoning_effort" and (word not in _LEVELS or _is_list(refusal.text[found.end() :])):
            continue
        if name != "reasoning_effort" and word not in ("true", "false"):
            continue
        value: Any = word if name == "reasoning_effort" else word == "true"
        if refusal.sent.get(name) == value:
            continue
        if name == "enable_thinking" and name in refusal.sent:
            return QuirkChange("thinking_off", True) if value else QuirkChange("thinking_on", False)
        if name == "reasoning_effort" and "reasoning_options" in refusal.sent:
            return QuirkChange("efforts", {value: value})  # it stands elsewhere in this request
        if refusal.says(r"\btools?\b|\bfunctions?\b"):
            return QuirkChange("body_with_tools", {name: value}) if refusal.sent.get("tools") else None
        if name == "reasoning_effort":
            return QuirkChange("efforts", {value: value})
        return QuirkChange("body", {name: value})
    return None


def _is_list(rest: str) -> bool:
    """Whether a level is followed by another one: the refusal lists levels, which `effort` reads."""
    return re.match(rf"\W{{0,4}}(?:(?:or|and)\W{{1,3}})?{_ANY_LEVEL}", rest, re.IGNORECASE) is not None


def reasoning_history(refusal: Refusal) -> QuirkChange | None:
    """Read demands for reasoning, or for thought signatures, of earlier messages, and refusals of it."""
    is_missing = refusal.says(
        r"missing|must be (?:passed|provided|included|present)|(?:is|are) required|required for|必须"
        r"(?:携带|包含|传)|缺少"
    )
    messages = messages_of(refusal.sent)
    calls = any(message.get("tool_calls") for message in messages)
    if calls and is_missing and refusal.says(r"thought_?signature"):
        placeholder = QuirkChange("thought_signature_placeholder", "skip_thought_signature_validator")
        return QuirkChange("thought_signatures", True, (placeholder,))
    if refusal.says(r"must start with a thinking block|expected [`'\"]?(?:redacted_)?thinking\b"):
        return _without_thinking(refusal.sent, is_lasting=False)
    for name in ("reasoning_content", "reasoning"):
        if not (refusal.mentions(name) or refusal.param.endswith(name)):
            continue
        if is_missing and any(message.get("role") == "assistant" for message in messages):
            also = QuirkChange("reasoning_field", name), QuirkChange("reasoning_placeholder", ".")
            return QuirkChange("reasoning_return", "field", also)
        is_refused = UNKNOWN.search(refusal.text) or refusal.says("unsupported")
        if is_refused and any(name in message for message in messages):
            return QuirkChange("reasoning_return", "none")
    return None


_SIGNED = (
    "reasoning_details",
    "thinking_blocks",
    "extra_content",
    "provider_specific_fields",
    "thought_signature",
    "reasoning_opaque",
)
_INVALID_SIGNATURE = re.compile(
    r"(?:invalid|corrupted|malformed|expired|unknown)\W{1,3}(?:thought.?)?signature"
    r"|(?:thought.?)?signature\b[^.]{0,30}(?:not valid|invalid|could not be|cannot be|expired)"
    r"|encrypted.?content\b[^.]{0,60}(?:could not|cannot|invalid|not valid)",
    re.IGNORECASE,
)


def signed_data(refusal: Refusal) -> QuirkChange | None:
    """Leave out signatures: for good where their fields are not known, for one call where they are not valid, as
    after a change of the key."""
    messages = messages_of(refusal.sent)
    fields = {name for message in messages for name in message}
    fields |= {name for message in messages for call in message.get("tool_calls") or () for name in call}
    sent = [name for name in _SIGNED if name in fields]
    if not sent:
        return None
    if _INVALID_SIGNATURE.search(refusal.text):
        return QuirkChange("signed_data", False, is_lasting=False)
    is_named = any(refusal.mentions(name) or refusal.param.endswith(name) for name in sent)
    return QuirkChange("signed_data", False) if is_named and UNKNOWN.search(refusal.text) else None


def effort(refusal: Refusal) -> QuirkChange | None:
    sent = refusal.sent.get("reasoning_effort")
    reasoning = refusal.sent.get("reasoning")
    if sent is None and isinstance(reasoning, Mapping):
        sent = reasoning.get("effort")
    if not isinstance(sent, str):
        return None
    is_named = (
        refusal.is_about("reasoning_effort")
        or refusal.param.endswith("effort")
        or refusal.says(
            r"\breasoning[._ ]?effort\b|\bthink(?:ing)?[ _]?(?:value|level|effort)|\beffort\b|reasoning is mandatory"
        )
    )
    levels = _levels_in(refusal.text, sent)
    # Some name the refused level and those that are taken, and no field.
    if not is_named and not (levels and refusal.says(rf"[`'\"]{sent}[`'\"]")):
        return None
    if levels:
        return QuirkChange("efforts", _efforts(levels))
    if refusal.says("unsupported parameter|argument"):
        return QuirkChange("effort_path", None)
    is_for_value = refusal.says(rf"\b{sent}\b|mandatory|\bvalue\b")
    if sent in ("none", "minimal", "xhigh", "max") and is_for_value:
        return QuirkChange("efforts", _efforts(["low", "medium", "high"]))
    if sent == "medium" and refusal.says(r"\bmedium\b") and refusal.says(r"\blevel\b|\bvalue\b|effort"):
        return QuirkChange("efforts", _efforts(["low", "high"]))
    return QuirkChange("effort_path", None)


_LISTED = re.compile(
    r"(?:(?:supported|allowed|valid|accepted|available|possible) (?:values|options|levels|efforts)|available|must be"
    r"|expected|one of|should be|please use|can only be|only (?:supports?|accepts?|takes|allows?)|可选值?|取值|支持"
    r")\W{0,4}(?:are|is|values|one of|为|：)?(.{1,200})",
    re.IGNORECASE,
)


def _levels_in(text: str, sent: str) -> list[str]:
    """Return the levels that a refusal lists as those that are taken; none if the refused one is among them."""
    found = _LISTED.search(text)
    if found is None:
        return []
    levels = [
        level for level in _LEVELS if re.search(rf"(?<![a-z]){level}(?![a-z])", found[1], re.IGNORECASE)
    ]
    return [] if sent in levels else levels


def _efforts(known: list[str]) -> dict[str, str]:
    efforts = {level: level for level in known}
    if "none" not in efforts and "minimal" in efforts:
        efforts["none"] = "minimal"  # the closest level to no thinking
    return efforts


def budget(refusal: Refusal) -> QuirkChange | None:
    """Read limits of the budget, and of the output that holds it."""
    if not asks_to_think(refusal.sent) or not _BUDGET.search(refusal.text):
        return None
    sent = refusal.sent.get("thinking_budget")
    limits = [int(number) for number in re.findall(r"\d{3,7}", refusal.text)]
    below = [limit for limit in limits if isinstance(sent, int) and limit < sent]
    if below:
        return QuirkChange("budget_range", [min(1024, below[-1]), below[-1]])
    if isinstance(sent, int):
        return QuirkChange("budget_path", None)
    return _without_thinking(refusal.sent)


def thinking(refusal: Refusal) -> QuirkChange | None:
    if _NO_THINKING.search(refusal.text):
        return _without_thinking(refusal.sent)
    is_named = any(
        refusal.names(name) for name in ("thinking", "enable_thinking", "chat_template_kwargs")
    ) or ("chat_template_kwargs" in refusal.sent and refusal.mentions("chat_template"))
    is_refused = UNKNOWN.search(refusal.text) or refusal.says(r"cannot be disabled|always")
    return QuirkChange("thinking_path", None) if is_named and is_refused else None
