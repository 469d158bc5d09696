"""Rules for refusals of parameters beside thinking and tools: sampling, stop sequences, output, switches.

A rule takes a `Refusal` and returns the quirk that avoids it, or None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from proxyd.providers.refusals import UNKNOWN, QuirkChange, Refusal, count_limit

__all__ = ["output_limit_name", "response_format", "sampling", "stop", "stream", "switch"]

#: Parameters that a Dialect switch of the same name leaves out.
_SWITCHES = ("stream_options", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier")
_SAMPLING = ("temperature", "top_p", "top_k")
_FORMATS = (
    r"response[_ ]?(?:format|schema|mime.?type)|json_schema\b|json_object|\bjson mode|structured outputs?\b"
    r"|guided_json"
)
_NOT_TOGETHER = r"unsupported|not supported|cannot|can't|incompatible|not compatible|not allowed|only"


def switch(refusal: Refusal) -> QuirkChange | None:
    """Leave out each switch that is named."""
    changes = [QuirkChange(name, False) for name in _SWITCHES if refusal.names(name)]
    if not changes or (len(changes) > 1 and not refusal.says(r"parameters?|arguments|fields?|inputs")):
        return None
    return QuirkChange(changes[0].quirk, False, tuple(changes[1:]))


def sampling(refusal: Refusal) -> QuirkChange | None:
    sent = [name for name in _SAMPLING if name in refusal.sent]
    named = [name for name in sent if refusal.names(name)]
    if not named:
        return None
    if named == ["temperature", "top_p"] and refusal.says(r"\bboth\b"):
        named = ["top_p"]  # Claude models behind a gateway take one of the two
    return QuirkChange("sampling", [name for name in sent if name not in named])


def stop(refusal: Refusal) -> QuirkChange | None:
    if not (refusal.names("stop") or ("stop" in refusal.sent and refusal.mentions("stop_sequences"))):
        return None
    limit = count_limit(refusal.text)
    return QuirkChange("stop_limit", 0 if limit is None else limit)


def output_limit_name(refusal: Refusal) -> QuirkChange | None:
    for ours, other in (("max_tokens", "max_completion_tokens"), ("max_completion_tokens", "max_tokens")):
        if refusal.names(ours) and UNKNOWN.search(refusal.text):
            return QuirkChange("max_tokens_field", other)
    return None


def response_format(refusal: Refusal) -> QuirkChange | None:
    asked = refusal.sent.get("response_format")
    if not isinstance(asked, Mapping) or not (refusal.is_about("response_format") or refusal.says(_FORMATS)):
        return None
    has_tools = refusal.says(r"\btools?\b|function.?call") and refusal.says(_NOT_TOGETHER)
    is_schema = asked.get("type") == "json_schema" and not has_tools
    return QuirkChange("response_format", "json_object" if is_schema else "none")


_NO_STREAM = re.compile(
    r"\bstream(?:ing)?(?: mode| responses?)?\b[^.]{0,40}(?:not|n't) (?:yet )?(?:supported|allowed|available"
    r"|implemented)"
    r"|(?:not|n't) support (?:\w{1,12} )?stream(?:ing)?\b|stream['\"`]? (?:must|should) be (?:set to )?false"
    r"|不支持流式",
    re.IGNORECASE,
)


def stream(refusal: Refusal) -> QuirkChange | None:
    if refusal.sent.get("stream") is True and _NO_STREAM.search(refusal.text):
        return QuirkChange("stream", False)
    return None
