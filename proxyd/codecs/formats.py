"""The upstream protocols that translated routes speak: one row for each, chosen by ``format`` of an entry.

A row holds the pair of codecs and what else differs between protocols. Nothing outside `codecs` and `providers` knows
which one is in use. A new protocol is a package beside `codecs.openai` and a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from proxyd.codecs.cache.tool_inputs import ToolInputs
from proxyd.codecs.codec import Codec, NewId, ResponseContext, Warn
from proxyd.codecs.gemini import request as gemini
from proxyd.codecs.gemini.chat_terms import as_chat_terms, thought_signatures
from proxyd.codecs.gemini.counting import counted_tokens, counting_body
from proxyd.codecs.gemini.stream import GeminiStream
from proxyd.codecs.gemini.thinking import BUDGET_PATH, LEVEL_PATH
from proxyd.codecs.openai import request as chat
from proxyd.codecs.openai.stream import OpenAIStream
from proxyd.codecs.responses import request as responses
from proxyd.codecs.responses.chat_terms import encrypted_contents, in_chat_terms
from proxyd.codecs.responses.stream import ResponsesStream
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.translated import RequestOptions, Translated

__all__ = ["CHAT", "FORMATS", "GEMINI", "RESPONSES", "Format"]


class Translation(Protocol):
    """Translates one Messages request, yielding now and then so that the caller can let other tasks run."""

    def __call__(
        self,
        payload: dict[str, Any],
        dialect: Dialect,
        options: RequestOptions,
        inputs: ToolInputs | None = None,
        /,
    ) -> Generator[None, None, Translated]: ...


@dataclass(frozen=True, slots=True)
class Counting:
    """How an upstream counts the tokens of a request, which costs nothing.

    Args:
        path: model -> what follows the base address.
        body: model, a translated request -> the request that counts it.
        tokens: the body of a response -> the number; None if it holds none.
    """

    path: Callable[[str], str]
    body: Callable[[str, Mapping[str, Any]], dict[str, Any]]
    tokens: Callable[[bytes], int | None]


@dataclass(frozen=True, slots=True)
class Format:
    """One upstream protocol.

    Args:
        name: value of ``format`` in models.yaml.
        title: its name in documents and messages.
        path: model and whether a stream is requested -> what follows the base address.
        translation: a Messages request -> the upstream's.
        codec: returns the codec of one response, streamed or whole.
        dialect: the switches of a vendor's Chat Completions -> those of this protocol where they differ for every
            vendor; profiles add what differs for theirs.
        chat_terms: a request's body -> what rules about refusals read of it, in the terms of Chat Completions.
        signed_data: a request's body -> data of earlier turns in it that only their sender can read.
        folder: of its transcripts, below those of Chat Completions.
        key_header: the header that carries the key; None leaves it to the profile.
        counting: None where only an estimate of the tokens is possible.
    """

    name: str
    title: str
    path: Callable[[str, bool], str]
    translation: Translation
    codec: Callable[[ResponseContext, Dialect, NewId, Warn], Codec]
    dialect: Callable[[Dialect], Dialect]
    chat_terms: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    signed_data: Callable[[Mapping[str, Any]], list[str]]
    folder: str = ""
    key_header: str | None = None
    counting: Counting | None = None


def _responses_dialect(dialect: Dialect) -> Dialect:
    """Return the switches for Responses: effort has one place, and results hold images."""
    return replace(
        dialect,
        effort_path=None if dialect.effort_path is None else "reasoning.effort",
        thinking_path=None,
        budget_path=None,
        body={},
        body_with_tools={},
        stream_options=False,
        cache_control=False,
        images_in_tool_results=True,
        text_after_tool_joins_it=False,
        thought_signatures=False,
    )


def _gemini_dialect(dialect: Dialect) -> Dialect:
    """Return the switches for the Gemini API: whole JSON Schema, results with images, its own names of parameters."""
    return replace(
        dialect,
        leading_system_only=True,
        files=True,
        sampling=("temperature", "top_p", "top_k"),
        stop_limit=5,
        body={},
        body_with_tools={},
        cache_control=False,
        prompt_cache_key=False,
        safety_identifier=False,
        service_tier=False,
        images_in_tool_results=True,
        tool_names_start_with_letter=True,
        named_tool_choice=True,
        required_word="required",
        parallel_tool_calls=False,
        schema_style="full",
        thinking_path=None,
        effort_path=None if dialect.effort_path is None else LEVEL_PATH,
        budget_path=None if dialect.budget_path is None else BUDGET_PATH,
        thought_signatures=True,
    )


CHAT = Format(
    name="openai-chat",
    title="Chat Completions",
    path=lambda model, is_stream: "/chat/completions",
    translation=chat.translation,
    codec=OpenAIStream,
    dialect=lambda dialect: dialect,
    chat_terms=lambda body: body,
    signed_data=lambda body: [],
)
RESPONSES = Format(
    name="openai-responses",
    title="Responses",
    path=lambda model, is_stream: "/responses",
    translation=responses.translation,
    codec=ResponsesStream,
    dialect=_responses_dialect,
    chat_terms=in_chat_terms,
    signed_data=encrypted_contents,
    folder="responses",
)
GEMINI = Format(
    name="gemini",
    title="Gemini API (`generateContent`)",
    path=gemini.path_of,
    translation=gemini.translation,
    codec=GeminiStream,
    dialect=_gemini_dialect,
    chat_terms=as_chat_terms,
    signed_data=thought_signatures,
    folder="gemini-api",
    key_header="x-goog-api-key",
    counting=Counting(
        path=lambda model: f"/{gemini.resource_name(model)}:countTokens",
        body=lambda model, body: counting_body(gemini.resource_name(model), body),
        tokens=counted_tokens,
    ),
)

#: Every format by its name.
FORMATS: Mapping[str, Format] = {each.name: each for each in (CHAT, RESPONSES, GEMINI)}
