"""Hypothesis strategies for Messages requests, with values that clients rarely send."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from proxyd.codecs.anthropic.thinking_signature import encode_signature

TEXTS = st.sampled_from(
    ["", " ", "a", "hello", "Error: x", "日本", "\ud800", "x-anthropic-billing-header: 1"]
) | st.text(max_size=8)
#: Few, so that calls and results meet; also ids that upstreams would refuse.
IDS = st.sampled_from(
    ["t1", "t2", "call_1", "", "functions.Read:0", "toolu_cpx_Zm9v", "toolu_cpx_!", "x" * 70]
)
NAMES = st.sampled_from(["Read", "Bash", "mcp__server__" + "x" * 70, "no spaces", "9lives", "日", ""])


def _json(floats: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers() | floats | TEXTS
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=6,
    )


#: Our parser takes NaN and Infinity, so a history may hold them; a tool's schema with them is refused as a whole.
JSON = _json(st.floats())
SCHEMAS = _json(st.floats(allow_nan=False, allow_infinity=False))
SIGNATURES = st.sampled_from(
    [
        "",
        "foreign",
        "cpx1.",
        "cpx1.!!!!",
        encode_signature("m", "reasoning_content", None, {"t1": "sig"}),
        encode_signature("m", "reasoning_details", [{"type": "reasoning.text", "text": "x"}], None),
        encode_signature("other", "reasoning", [{"type": "reasoning.encrypted", "data": "x"}], {"t2": "s"}),
    ]
)
SOURCES = st.fixed_dictionaries(
    {"type": st.sampled_from(["base64", "url", "file", "text", "content", "odd"])},
    optional={
        "media_type": st.sampled_from(
            ["image/png", "image/jpeg", "application/pdf", "text/plain", "image/tiff"]
        ),
        "data": st.sampled_from(["AAAA", "", "iVBORw0KGgo="]),
        "url": st.sampled_from(["https://e.com/a.png", "ftp://e.com", ""]),
        "file_id": st.just("file_1"),
        "content": TEXTS,
    },
)
_CACHE = {"cache_control": st.just({"type": "ephemeral"})}
TEXT_BLOCKS = st.fixed_dictionaries({"type": st.just("text"), "text": TEXTS}, optional=_CACHE)
LEAVES = st.one_of(
    TEXT_BLOCKS,
    st.fixed_dictionaries({"type": st.just("image"), "source": SOURCES}),
    st.fixed_dictionaries(
        {"type": st.just("document"), "source": SOURCES}, optional={"title": TEXTS, "context": TEXTS}
    ),
    st.fixed_dictionaries(
        {"type": st.just("search_result"), "title": TEXTS, "content": st.lists(TEXT_BLOCKS)}
    ),
    st.fixed_dictionaries({"type": st.just("tool_reference"), "tool_name": NAMES}),
    st.fixed_dictionaries({"type": TEXTS | st.none()}, optional={"text": TEXTS, "content": JSON}),
)
BLOCKS = st.one_of(
    LEAVES,
    st.fixed_dictionaries(
        {
            "type": st.just("tool_result"),
            "tool_use_id": IDS,
            "content": st.none() | TEXTS | st.lists(LEAVES, max_size=3),
        },
        optional={"is_error": st.booleans(), **_CACHE},
    ),
    st.fixed_dictionaries({"type": st.just("tool_use"), "id": IDS, "name": NAMES, "input": JSON}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": TEXTS, "signature": SIGNATURES}),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": TEXTS}),
    st.fixed_dictionaries({"type": st.just("server_tool_use"), "name": NAMES, "input": JSON}),
    st.fixed_dictionaries({"type": st.just("web_search_tool_result"), "tool_use_id": IDS, "content": JSON}),
    st.fixed_dictionaries(
        {"type": st.sampled_from(["compaction", "fallback", "container_upload"]), "content": TEXTS}
    ),
    JSON,
)
MESSAGES = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["user", "assistant", "system"]),
        "content": TEXTS | st.lists(BLOCKS, max_size=5),
    },
    optional={"clear_at": st.sampled_from(["next_user_message", "never"])},
)
TOOLS = st.fixed_dictionaries(
    {"name": NAMES.filter(bool)},
    optional={
        "description": TEXTS,
        "input_schema": SCHEMAS | st.just({"type": "object", "properties": {"format": {"type": "string"}}}),
        "type": st.sampled_from(["custom", "web_search_20250305", "bash_20250124"]),
        "defer_loading": st.booleans(),
        "strict": st.booleans(),
    },
)


@st.composite
def realistic_histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Draw turns as Claude Code sends them: calls, their results and texts; now and then another block."""
    odd = st.sampled_from([False] * 9 + [True])
    messages: list[dict[str, Any]] = []
    number = 0
    for _ in range(draw(st.integers(1, 6))):
        said: list[Any] = draw(st.lists(TEXT_BLOCKS, max_size=2))
        results: list[Any] = []
        for _ in range(draw(st.integers(0, 3))):
            number += 1
            call_id = draw(IDS) if draw(odd) else f"toolu_{number}"
            value = draw(JSON) if draw(odd) else draw(st.dictionaries(TEXTS, TEXTS, max_size=2))
            said.append({"type": "tool_use", "id": call_id, "name": draw(NAMES), "input": value})
            content = draw(TEXTS | st.lists(TEXT_BLOCKS, min_size=1, max_size=1))
            result = {"type": "tool_result", "tool_use_id": call_id, "content": content}
            if draw(odd):
                result["is_error"] = True
            if not draw(odd):
                results.append(result)
        if draw(odd):
            said.append(draw(BLOCKS))
        results += draw(st.lists(BLOCKS if draw(odd) else TEXT_BLOCKS, max_size=2))
        messages.append({"role": "assistant", "content": said})
        messages.append({"role": "user", "content": results})
    return messages[draw(st.integers(0, 1)) :]


PAYLOADS = st.fixed_dictionaries(
    {
        "model": st.just("x"),
        "max_tokens": st.integers(0, 10**6),
        "messages": st.lists(MESSAGES, min_size=1, max_size=6) | realistic_histories(),
    },
    optional={
        "system": TEXTS | st.lists(TEXT_BLOCKS, max_size=3),
        "tools": st.lists(TOOLS, max_size=4),
        "thinking": st.sampled_from(
            [
                {"type": "adaptive"},
                {"type": "disabled"},
                {"type": "enabled", "budget_tokens": 5000},
                {"type": "enabled", "budget_tokens": "many"},
            ]
        ),
        "output_config": st.sampled_from(
            [
                {"effort": "max"},
                {"effort": "odd"},
                {"format": {"type": "json_schema", "schema": {"type": "object"}}},
            ]
        ),
        "tool_choice": st.sampled_from(
            [{"type": "auto"}, {"type": "none", "disable_parallel_tool_use": True}]
        ),
        "stop_sequences": st.lists(TEXTS, max_size=6),
        "temperature": st.floats(0, 1),
        "top_k": st.integers(1, 50),
        "metadata": st.just({"user_id": "u" * 200}),
        "service_tier": st.sampled_from(["auto", "standard_only", "odd"]),
        "never_heard_of": JSON,
    },
)
