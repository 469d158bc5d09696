"""What an entry can do: the table agrees with what the translation sends, and says what to set."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from proxyd.codecs.formats import FORMATS
from proxyd.codecs.translation.translated import RequestOptions, run_to_end
from proxyd.config.routes import ModelRoute
from proxyd.config.secrets import Credential
from proxyd.config.settings import Settings
from proxyd.providers.features import BY_US, FEATURES, NATIVE, NO, PASSED_ON, Feature, features_of
from proxyd.providers.registry import PROFILES, dialect_for

BASE = "https://api.example.com/v1"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "aaaa"}}
PDF = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aaaa"}}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}


def route(**fields: Any) -> ModelRoute:
    return ModelRoute(**{"model_id": "m", "api_base": BASE, "model_name": "m", **fields})


def found(entry: ModelRoute, *, reads_pdfs: bool = False, **settings: Any) -> dict[str, Feature]:
    features = features_of(entry, replace(Settings(), **settings), reads_pdfs=reads_pdfs)
    return {each.name: each for each in features}


def test_all_features_are_found_in_order() -> None:
    assert [each.name for each in features_of(route(), Settings())] == list(FEATURES)


@pytest.mark.parametrize("format_name", FORMATS)
@pytest.mark.parametrize("provider", PROFILES)
def test_the_table_says_what_the_translation_sends(provider: str, format_name: str) -> None:
    entry = route(provider=provider, format=format_name)
    dialect = dialect_for(PROFILES[provider], "m", {}, FORMATS[format_name])
    table = found(entry)

    def sent(content: Any, **fields: Any) -> str:
        payload = {
            "model": "m",
            "max_tokens": 9,
            "messages": [{"role": "user", "content": content}],
            **fields,
        }
        translated = run_to_end(FORMATS[format_name].translation(payload, dialect, RequestOptions("m", True)))
        return json.dumps(translated.body)

    assert (table["images"].served == NATIVE) is ("aaaa" in sent([IMAGE]))
    assert (table["PDFs"].served == NATIVE) is ("aaaa" in sent([PDF]))
    structured = sent("hi", output_config={"format": {"type": "json_schema", "schema": SCHEMA}})
    assert (table["structured outputs"].served == NATIVE) is any(
        word in structured for word in ("json_schema", "responseJsonSchema", "responseSchema")
    )
    marked = sent([{"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}])
    assert (table["caching"].served == NATIVE) is ("cache_control" in marked or "breakpoint" in marked)
    thinking = sent("hi", thinking={"type": "adaptive"}, output_config={"effort": "high"})
    assert (table["thinking"].served == NATIVE) is (thinking != sent("hi")) or dialect.thinks_by_default


@pytest.mark.parametrize(
    ("fields", "settings", "name", "served", "words"),
    [
        ({"can_stream": False}, {}, "streaming", BY_US, "can_stream: true"),
        ({"api_base": "http://localhost:1/v1"}, {}, "tools", NATIVE, "writes as text are run"),
        ({}, {}, "tools", NATIVE, "text_tool_calls: always"),
        ({"quirks": {"one_call_per_message": True}}, {}, "parallel tools", BY_US, "one message for each"),
        ({"provider": "mistral"}, {}, "thinking", NO, "reasoning_effort: high"),
        ({"provider": "mistral", "reasoning_effort": "high"}, {}, "thinking", NATIVE, "asked for by"),
        ({"vision": False}, {}, "images", NO, "images: {describe_with: MODEL_ID}"),
        ({"vision": False, "images": {"describe_with": "eyes"}}, {}, "images", BY_US, "by eyes"),
        ({"vision": False}, {"images": {"describe_with": "eyes"}}, "images", BY_US, "by eyes"),
        ({}, {}, "PDFs", NO, "pip install 'claude-proxyd[pdf]'"),
        ({}, {"reads_pdfs": True}, "PDFs", BY_US, "text and image of each page"),
        ({"vision": False}, {"reads_pdfs": True}, "PDFs", BY_US, "images: {describe_with: MODEL_ID}"),
        (
            {"vision": False},
            {"reads_pdfs": True, "images": {"describe_with": "eyes"}},
            "PDFs",
            BY_US,
            "described by eyes",
        ),
        ({"quirks": {"files": True}}, {"reads_pdfs": True}, "PDFs", NATIVE, "as files"),
        ({}, {"web_search": {"engine": "searxng", "url": "http://h"}}, "web search", BY_US, "by searxng"),
        ({"provider": "zhipu"}, {"web_search": {"engine": "upstream"}}, "web search", NATIVE, "own search"),
        ({}, {"web_search": {"engine": "upstream"}}, "web search", NO, "engine: searxng"),
        ({"provider": "zhipu"}, {}, "web search", NO, "engine: upstream"),
        ({}, {"auto_mode": {"classifier": "judge"}}, "auto mode", BY_US, "by judge"),
        (
            {"direct": True},
            {"auto_mode": {"classifier": "judge"}},
            "auto mode",
            PASSED_ON,
            "in the entry itself",
        ),
        ({"max_input_tokens": 128_000}, {}, "window", BY_US, "128,000 tokens"),
        ({"known_window": 64_000}, {}, "window", BY_US, "64,000 tokens"),
        ({}, {}, "window", PASSED_ON, "max_input_tokens: N"),
        ({}, {"context_edits": False}, "context edits", NO, "context_edits: true"),
        ({"direct": True, "omit": ("thinking",)}, {}, "thinking", NO, "the field thinking is left out"),
        ({"direct": True}, {}, "images", PASSED_ON, "passed on"),
        ({"direct": True, "api_base": "https://api.anthropic.com"}, {}, "web search", NATIVE, "passed on"),
    ],
)
def test_what_is_configured_counts(
    fields: dict[str, Any], settings: dict[str, Any], name: str, served: str, words: str
) -> None:
    feature = found(route(**fields), **settings)[name]
    assert feature.served == served
    assert words in f"{feature.how} {feature.remedy}"


def test_a_search_engine_without_its_key_does_not_serve() -> None:
    missing = Credential(None, "${BRAVE}", missing="BRAVE is not set")
    feature = found(route(web_search={"engine": "brave", "api_key": "${BRAVE}"}, web_search_key=missing))
    assert feature["web search"] == Feature("web search", NO, "brave has no key", "BRAVE is not set")


def test_all_of_anthropic_is_native() -> None:
    entry = route(direct=True, api_base="https://api.anthropic.com")
    assert {(each.served, each.remedy) for each in features_of(entry, Settings())} == {(NATIVE, "")}
