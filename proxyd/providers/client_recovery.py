"""Refusals of direct upstreams, in the words after which Claude Code goes on in one step.

A direct request is forwarded as it is, so what its upstream does not take cannot be left out here. Claude Code can
leave it out itself: after a 400 whose whole message is ``capability_rejected: CLASS`` it repeats the request without
that feature. After any other 400 it drops one feature after the other, in up to six calls, and gives up
(docs/spec/hints-and-modes.md#capability-rejected). A refusal counts only where the request has the feature, so the
repeated one cannot be refused in this way again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from proxyd.codecs.upstream_errors.context_overflow import find_output_limit, find_overflow
from proxyd.codecs.upstream_errors.error_envelopes import parse_error_body
from proxyd.codecs.upstream_errors.errors import names_content_filter

__all__ = ["is_content_refusal", "rejected_capability"]

#: Statuses under which upstreams refuse a part of a request.
_STATUSES = frozenset({400, 415, 422, 500})
_MAX_JUDGED_CHARS = 2000

_REFUSED = (
    r"not (?:be )?(?:supported|permitted|allowed|accepted|available)|n[o']t (?:support|accept|allow|take)"
    r"|unsupported|unavailable|invalid|unknown|unexpected|unrecogni[sz]ed|should be|must be|expected|cannot|only"
)


def _about(*words: str) -> re.Pattern[str]:
    """Return a pattern for texts in which one of `words` is near a word of refusal."""
    either = "|".join(words)
    return re.compile(
        rf"(?:{either}).{{0,120}}(?:{_REFUSED})|(?:{_REFUSED}).{{0,60}}(?:{either})", re.IGNORECASE
    )


def _blocks(payload: Mapping[str, Any], role: str | None = None) -> Iterator[Mapping[str, Any]]:
    """Yield the blocks of all messages, or of those of one role, with those in results of tools."""
    pending = [each.get("content") for each in _messages(payload) if role in (None, each.get("role"))]
    while pending:
        content = pending.pop()
        for block in content if isinstance(content, list) else ():
            if isinstance(block, Mapping):
                yield block
                pending.append(block.get("content"))


def _messages(payload: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    messages = payload.get("messages")
    return [each for each in messages if isinstance(each, Mapping)] if isinstance(messages, list) else []


def _has_block(*kinds: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda payload: any(block.get("type") in kinds for block in _blocks(payload))


def _has_system_message(payload: Mapping[str, Any]) -> bool:
    return any(message.get("role") == "system" for message in _messages(payload))


def _thinks_adaptively(payload: Mapping[str, Any]) -> bool:
    thinking = payload.get("thinking")
    return isinstance(thinking, Mapping) and thinking.get("type") == "adaptive"


def _has_effort(payload: Mapping[str, Any]) -> bool:
    config = payload.get("output_config")
    return isinstance(config, Mapping) and "effort" in config


def _has_schema(payload: Mapping[str, Any]) -> bool:
    config = payload.get("output_config")
    return isinstance(config, Mapping) and "format" in config


#: Class, whether a request has the feature, and texts that refuse it. The first that fits counts.
_CLASSES: tuple[tuple[str, Callable[[Mapping[str, Any]], bool], re.Pattern[str]], ...] = (
    (
        "mid_conv_system",
        _has_system_message,
        # pydantic; vLLM and Mistral; effort in a system message (CLIProxyAPI)
        re.compile(
            r"role.{0,40}(?:'user' or 'assistant'|`?system)"
            r"|(?:unexpected|invalid|unknown|unsupported).{0,30}role.{0,30}system"
            r"|messages\.\d{1,6}\.output_config",
            re.IGNORECASE,
        ),
    ),
    # DeepSeek says: unknown variant `image`, expected one of `text`, `tool_use` and so on
    ("image_block", _has_block("image"), _about(r"\bimages?\b", "vision", "multimodal")),
    ("document_block", _has_block("document"), _about(r"\bdocuments?\b", r"\bpdfs?\b")),
    ("thinking_signature", _has_block("thinking", "redacted_thinking"), _about("signature")),
    (
        "thinking_type:adaptive",
        _thinks_adaptively,
        re.compile(
            r"thinking.{0,80}(?:adaptive|'enabled' or 'disabled'|`?enabled`?,? (?:or )?`?disabled)"
            r"|(?:unknown|unsupported|invalid).{0,30}\badaptive\b|\badaptive\b.{0,40}not supported",
            re.IGNORECASE,
        ),
    ),
    # Before effort: a client that gets this refusal sends none for the rest of its session.
    (
        "structured_outputs_unsupported",
        _has_schema,
        _about(r"output_config\.format", r"\bjson_schema\b", r"structured[ _]outputs?", "response_format"),
    ),
    ("effort_unsupported", _has_effort, _about(r"\beffort\b", r"(?<!\.)\boutput_config\b(?!\.format)")),
)


def rejected_capability(status: int, body: bytes, payload: Mapping[str, Any]) -> str | None:
    """Return the class of what an upstream refuses in a request, or None.

    Args:
        status, body: of the upstream's response.
        payload: the client's request.
    """
    if status not in _STATUSES:
        return None
    text = " ".join(parse_error_body(body).message[:_MAX_JUDGED_CHARS].split())
    if not text or find_overflow(text) or find_output_limit(text):
        return None
    for name, is_in, pattern in _CLASSES:
        if pattern.search(text) and is_in(payload):
            return name
    return None


def is_content_refusal(status: int, body: bytes) -> bool:
    """Whether an upstream's filter of contents has refused a prompt."""
    return status in _STATUSES and names_content_filter(body)
