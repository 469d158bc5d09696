"""Fields of a request that mean the same in every upstream dialect."""

from __future__ import annotations

from typing import Any

from proxyd import jsonio
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import RequestOptions, hex_digest
from proxyd.codecs.translation.translation_notes import Notes
from proxyd.errors import ClientError

__all__ = [
    "check_request",
    "note_dropped",
    "output_limit",
    "requested_schema",
    "schema_as_instructions",
    "write_accounting",
    "write_sampling",
]

#: Longest ``prompt_cache_key`` that OpenAI accepts; Claude Code's session ids are 36 characters.
MAX_CACHE_KEY = 64

# fmt: off
#: Fields that translations read.
_READ = frozenset((
    "model", "messages", "system", "max_tokens", "stream", "stop_sequences", "temperature", "top_p",
    "top_k", "tools", "tool_choice", "thinking", "output_config", "output_format", "metadata",
    "service_tier", "thread", "compaction",
))
#: Fields for features of Anthropic's servers; others are unknown.
_ANTHROPIC_ONLY = frozenset((
    "cache_control", "container", "mcp_servers", "context_management", "diagnostics", "inference_geo",
    "fallbacks", "speed", "safeguards", "fallback_credit_token", "billing_policy", "task_budget",
    "user_profile_id",
))
# fmt: on


def check_request(payload: dict[str, Any]) -> None:
    messages = payload.get("messages")
    if not isinstance(messages, list):
        kind = "nothing" if messages is None else type(messages).__name__
        raise ClientError(f"messages: expected an array, got {kind}; send the conversation")
    if not messages:
        raise ClientError("messages: expected at least one message, got none; send the conversation")
    if payload.get("compaction") is not None:
        raise ClientError("compaction: this upstream cannot compact; ask for a summary in a message instead")


def requested_schema(payload: dict[str, Any]) -> dict[str, Any] | None:
    """Return the JSON Schema that the response must match, if the client demands one."""
    output_config = payload.get("output_config")
    wanted = output_config.get("format") if isinstance(output_config, dict) else None
    wanted = wanted or payload.get("output_format")
    schema = wanted.get("schema") if isinstance(wanted, dict) else None
    return schema if isinstance(schema, dict) else None


def schema_as_instructions(schema: dict[str, Any], notes: Notes) -> str:
    """Return instructions that replace a schema where the upstream takes none."""
    notes.add("output_config.format", "became instructions", "the upstream takes no schema for its response")
    return (
        "Answer with one JSON object and nothing else, no code fence. It must match this JSON Schema:\n"
        + jsonio.dump_text(schema)
    )


def output_limit(payload: dict[str, Any], options: RequestOptions) -> int | None:
    """Return the most tokens of the response; None where neither client nor entry have a limit."""
    wanted = payload.get("max_tokens")
    if wanted is None:
        wanted = options.max_tokens
    elif type(wanted) is not int or wanted < 0:
        raise ClientError("max_tokens: expected a whole number from 1; send one")
    elif options.max_tokens is not None:
        wanted = min(wanted, options.max_tokens)
    return None if wanted is None else max(wanted, 1)


def write_sampling(
    payload: dict[str, Any], dialect: Dialect, options: RequestOptions, body: dict[str, Any], notes: Notes
) -> None:
    configured = {"temperature": options.temperature, "top_p": options.top_p}
    for name in ("temperature", "top_p", "top_k"):
        value = configured.get(name)
        if value is None:
            value = payload.get(name)
        if value is None:
            continue
        if name not in dialect.sampling:
            notes.add(name, "dropped", "the upstream does not take it")
        elif isinstance(value, (int, float)) and not isinstance(value, bool) and value == value:
            body[name] = value
        else:
            raise ClientError(
                f"{name}: expected a number, got {type(value).__name__}; send one or leave it out"
            )


def write_accounting(
    payload: dict[str, Any], dialect: Dialect, options: RequestOptions, body: dict[str, Any], notes: Notes
) -> None:
    """Write tier, cache key and user, which affect the upstream's accounting and not its response."""
    tier = payload.get("service_tier")
    if tier is not None:
        if dialect.service_tier and tier in ("auto", "standard_only"):
            body["service_tier"] = "auto" if tier == "auto" else "default"
        else:
            notes.add("service_tier", "dropped", "the upstream has no such tiers")
    metadata = payload.get("metadata")
    user_id = metadata.get("user_id") if isinstance(metadata, dict) else None
    if dialect.safety_identifier and isinstance(user_id, str):
        body["safety_identifier"] = hex_digest(user_id)
    elif metadata:
        notes.add("metadata", "dropped", "the user's identity is not the upstream's business")
    if dialect.prompt_cache_key and options.session_id:
        key = options.session_id
        body["prompt_cache_key"] = key if len(key) <= MAX_CACHE_KEY else hex_digest(key)


def note_dropped(payload: dict[str, Any], notes: Notes) -> None:
    """Note the fields that no translation reads."""
    for name in payload.keys() - _READ:
        why = "only Anthropic's servers do this" if name in _ANTHROPIC_ONLY else "unknown field"
        notes.add(name, "dropped", why)
