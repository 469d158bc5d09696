"""Switches in which OpenAI-compatible servers differ, read by the codecs of all upstream formats.

Which vendor sets which one, and the source, is in ``proxyd/providers``.
Every field can be overridden per entry of models.yaml under ``quirks:``, so each name here is a public
promise.

Paths such as ``thinking.type`` name a field inside an object of the request body; over ``gemini``, of its
``generationConfig``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["CHOICES", "Dialect"]

NOTHING: Mapping[str, Any] = MappingProxyType({})

#: Values of the fields that offer a choice.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "max_tokens_field": ("max_tokens", "max_completion_tokens"),
    "system_role": ("system", "developer", "user"),
    "response_format": ("json_schema", "json_object", "none"),
    "required_word": ("required", "any", "auto"),
    "tool_id_style": ("any", "openai", "mistral"),
    "schema_style": ("full", "openai", "moonshot", "grammar", "gemini", "xai", "strict", "common", "plain"),
    "reasoning_summary": ("auto", "concise", "detailed", "none"),
    "reasoning_items": ("encrypted", "content", "none"),
    "text_tool_calls": ("always", "local", "never"),
    "reasoning_return": ("none", "field", "received", "details", "tags", "chunks"),
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """The switches of one upstream. The defaults are those of the ``generic`` server."""

    # -- request
    #: Name of the output limit: ``max_tokens`` or ``max_completion_tokens``.
    max_tokens_field: str = "max_tokens"
    #: Role of instructions: ``system``, ``developer``, or ``user`` for templates without a system message.
    system_role: str = "system"
    #: Whether ``stream_options: {include_usage: true}`` is understood.
    stream_options: bool = True
    #: Whether responses can be streamed; as ``can_stream`` of the entry.
    stream: bool = True
    #: Whether images are understood; else they become a line of text.
    vision: bool = True
    #: Whether PDFs are understood, as parts of type ``file``; else they become texts and images of their pages, or a
    #: line of text.
    files: bool = False
    #: The sampling parameters that are taken, of temperature, top_p and top_k; the others are dropped.
    sampling: tuple[str, ...] = ("temperature", "top_p")
    #: Most entries of ``stop``: 0 drops them all, None has no limit.
    stop_limit: int | None = 4
    #: How far ``response_format`` goes; ``json_object`` and ``none`` put the schema into the instructions.
    response_format: str = "json_schema"
    #: Whether ``cache_control`` on text parts is passed on; it makes parts out of strings. Responses: it becomes a
    #: ``prompt_cache_breakpoint``.
    cache_control: bool = False
    #: Whether the session id goes out as ``prompt_cache_key``.
    prompt_cache_key: bool = False
    #: Whether a digest of ``metadata.user_id`` goes out as ``safety_identifier``.
    safety_identifier: bool = False
    #: Whether ``service_tier`` is taken.
    service_tier: bool = False
    #: Fields that every request of this vendor needs.
    body: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    #: Fields that requests with tools need in addition.
    body_with_tools: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    # -- messages
    #: Content of an assistant message that only calls tools; null unless a text is set.
    empty_content: str | None = None
    #: A message with several tool calls becomes one message for each call, followed by its result.
    one_call_per_message: bool = False
    #: Tool messages carry the ``name`` of their tool.
    tool_message_names: bool = False
    #: The template takes one system message, at the start: later ones become ``<system-reminder>`` text of
    #: the user.
    leading_system_only: bool = False
    #: The template wants user and assistant in turns, the user first: neighbours are merged.
    strict_alternation: bool = False
    #: No user message may follow a tool message: what the user says goes into the last tool message.
    text_after_tool_joins_it: bool = False
    #: Tool messages take images; else these follow in a user message.
    images_in_tool_results: bool = False
    #: Fields that mark a last assistant message as the beginning of the response, in that message and in the
    #: body.
    prefill_message: Mapping[str, Any] = field(default_factory=lambda: NOTHING)
    prefill_body: Mapping[str, Any] = field(default_factory=lambda: NOTHING)

    # -- tools
    #: Tools that the history calls are declared even where the request offers none.
    declares_called_tools: bool = False
    #: Most characters of a tool's description; None has no limit. A longer one is cut, and its whole text goes into the
    #: system message.
    max_description: int | None = None
    #: Most tools of one request; None has no limit.
    max_tools: int | None = None
    #: Word for "some tool must be called"; ``auto`` where the server knows none.
    required_word: str = "required"
    #: Whether ``tool_choice`` may name a function.
    named_tool_choice: bool = True
    #: Whether a tool may be forced while the model thinks; else the choice is left to it.
    forced_choice_while_thinking: bool = True
    #: Whether ``parallel_tool_calls`` is understood.
    parallel_tool_calls: bool = True
    #: ``any``: ids as they are. ``openai``: at most 40 of ``[A-Za-z0-9_-]``. ``mistral``: exactly 9 of
    #: ``[A-Za-z0-9]``.
    tool_id_style: str = "any"
    #: Tool names must begin with a letter.
    tool_names_start_with_letter: bool = False
    #: How much JSON Schema the server understands. ``full``: all of it. ``openai``: arrays have items, and nothing is
    #: combined at the root. ``moonshot``: every schema has a type. ``grammar``: what a grammar can hold, for servers
    #: that force tool calls by one: no bounds above 2000, no unanchored patterns. ``gemini``: its subset. ``xai``: no
    #: bounds on lengths. ``strict``: ``strict: true`` for tools whose schema allows it, else as ``openai``.
    #: ``common``: what all of these take. ``plain``: types, names and descriptions alone.
    schema_style: str = "openai"

    # -- thinking: where the request says whether and how much to think (docs/spec/messages-to-chat.md#thinking)
    #: Path of the on/off switch and its two values; a None value means that there is no such state to ask
    #: for.
    thinking_path: str | None = None
    thinking_on: Any = None
    thinking_off: Any = None
    #: Path of the effort, and what to send for none, minimal, low, medium, high, xhigh and max. A level that
    #: is missing takes the next lower one, else the next higher; a missing ``none`` takes the lowest level.
    effort_path: str | None = "reasoning_effort"
    efforts: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType(
            {"none": "minimal", "low": "low", "medium": "medium", "high": "high"}
        )
    )
    #: Whether the client's wish counts; else only ``reasoning_effort`` of models.yaml does. For servers that
    #: refuse the field for models that do not think.
    client_effort: bool = True
    #: Path of the budget in tokens, and its least and greatest value.
    budget_path: str | None = None
    budget_range: tuple[int, int] = (1024, 32768)
    #: The model thinks unless the request switches it off.
    thinks_by_default: bool = False

    # -- reasoning on the next turn (docs/spec/messages-to-chat.md#reasoning)
    #: How it goes back. ``field``: as text in `reasoning_field`. ``received``: as text in the field it came
    #: in, if from this model. ``details``: ``reasoning_details`` unchanged, else text in `reasoning_field`.
    #: ``tags``: inside the content between the first of `think_tags`. ``chunks``: Mistral's thinking chunks.
    #: ``none``: not at all.
    reasoning_return: str = "received"
    #: Field of the assistant message in which reasoning text goes back.
    reasoning_field: str | None = None
    #: Only assistant messages with tool calls carry it.
    reasoning_with_calls_only: bool = False
    #: What `reasoning_field` holds for a message with tool calls whose reasoning is lost; None leaves it out.
    reasoning_placeholder: str | None = None
    #: Signatures and encrypted reasoning go back to the fields in which this model sent them.
    signed_data: bool = True
    #: The upstream wants the signature of each turn's first tool call, which may follow the call in the stream.
    thought_signatures: bool = False
    #: The signature for a first call whose own is lost; None leaves it out.
    thought_signature_placeholder: str | None = None

    # -- formats openai-responses and gemini alone (docs/spec/responses.md, docs/spec/gemini.md)
    #: Which summary of its reasoning the model gives while it thinks; ``none`` asks for no summary. Gemini has one
    #: kind.
    reasoning_summary: str = "auto"
    #: How reasoning goes back. ``encrypted``: as ``encrypted_content``, which is asked for. ``content``: as text, to
    #: the model that wrote it. ``none``: not at all.
    reasoning_items: str = "encrypted"
    #: Reasoning items need an ``id``, although nothing is stored.
    reasoning_item_ids: bool = False
    #: Messages of the assistant have a ``phase``, which goes back with them.
    message_phases: bool = False
    #: Over ``gemini``: the vendor's ids of function calls go back with calls and results.
    function_call_ids: bool = True

    # -- stream
    #: Inline reasoning: the tag names whose content is thinking when the content starts with one of them.
    think_tags: tuple[str, ...] = ()
    #: The template writes the opening tag into the prompt: content is thinking up to a bare closing tag.
    think_tag_is_implied: bool = False
    #: Tags may come again after text (MiniMax native).
    think_tags_repeat: bool = False
    #: Over ``openai-chat``: whether calls of offered tools that the model writes into its text become tool calls, and
    #: spoilt calls are repaired. ``local``: where the upstream is on this machine or in a private network.
    text_tool_calls: str = "local"
    #: One response is spread over several choices (GitHub Copilot); else all but the first are ignored.
    merge_choices: bool = False
