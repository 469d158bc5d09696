"""Properties of generated streams: the client gets a legal stream or one error.

Text, thinking and arguments arrive whole and in order.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.codecs.anthropic.events import event_from_data
from proxyd.codecs.anthropic.grammar import Grammar
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.openai.finish_reason import FAILURES, STOP_REASONS
from proxyd.codecs.openai.stream import OpenAIStream
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.translation.dialect import Dialect
from proxyd.errors import ProxyError
from tests.support.effort import examples
from tests.support.sse_reader import message_of, read_events
from tests.support.text_calls import CALLS, offered

USED_IDS = ("call_1", "toolu_used")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
words = st.sampled_from(["Read", "Bash", "", "mcp__a__b", "x" * 70])
ids = st.sampled_from(["call_1", "call_2", "functions.Read:0", "", "a b", "call_" + "y" * 80])
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arguments = (
    st.sampled_from(['{"p":1}', '{"p"', ":1}", "{}", "", "null", "}", '"\\u00', "[1]", "ls -la"]) | texts
)


def sometimes(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly a valid value, sometimes any JSON."""
    return st.one_of(value, value, value, junk)


fragments = st.fixed_dictionaries(
    {},
    optional={
        "index": sometimes(st.integers(0, 2)),
        "id": sometimes(ids),
        "function": sometimes(
            st.fixed_dictionaries({}, optional={"name": sometimes(words), "arguments": sometimes(arguments)})
        ),
        "extra_content": st.just({"google": {"thought_signature": "c2ln"}}) | junk,
    },
)
details = st.fixed_dictionaries(
    {"type": st.sampled_from(["reasoning.text", "reasoning.encrypted", "reasoning.summary"])},
    optional={
        "text": texts,
        "data": texts,
        "summary": texts,
        "signature": texts,
        "index": sometimes(st.just(0)),
    },
)
parts = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": sometimes(texts)}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": sometimes(texts)}),
    st.fixed_dictionaries({"type": st.sampled_from(["reference", "image_url", "other"]), "image_url": junk}),
)
#: Calls written as text: whole, in two parts, and what belongs to none.
WRITTEN = [
    CALLS["hermes"],
    CALLS["hermes"][:30],
    CALLS["hermes"][30:],
    CALLS["mistral"],
    "```",
    "[TOOL_CALLS]",
]
tagged = texts | st.sampled_from(["<think>", "</think>", "<th", "ink>", "</t", "hink>", "\n", " ", *WRITTEN])
deltas = st.fixed_dictionaries(
    {},
    optional={
        "role": sometimes(st.just("assistant")),
        "content": sometimes(tagged | st.lists(parts, max_size=3)),
        "reasoning_content": sometimes(texts),
        "reasoning": sometimes(texts),
        "reasoning_details": sometimes(st.lists(details, max_size=2)),
        "refusal": sometimes(st.none() | texts),
        "tool_calls": sometimes(st.lists(fragments, max_size=3)),
        "function_call": sometimes(st.fixed_dictionaries({"name": words, "arguments": arguments})),
        "images": junk,
        "audio": st.just({"transcript": "said"}) | junk,
    },
)
finishes = st.none() | st.sampled_from([*STOP_REASONS, *FAILURES, "other", ""]) | junk
counts = sometimes(st.integers(0, 500))
usages = st.none() | st.fixed_dictionaries(
    {}, optional={"prompt_tokens": counts, "completion_tokens": counts, "cached_tokens": counts}
)
choices = st.fixed_dictionaries(
    {},
    optional={
        "index": sometimes(st.just(0)),
        "delta": sometimes(deltas),
        "message": sometimes(deltas),
        "finish_reason": finishes,
        "stop_reason": sometimes(st.just("STOP")),
        "usage": usages,
    },
)
chunks = sometimes(
    st.fixed_dictionaries(
        {"choices": sometimes(st.lists(choices, max_size=2))},
        optional={"usage": usages, "error": st.none() | st.just({}) | st.just({"message": "broken"})},
    )
)
dialects = st.builds(
    Dialect,
    think_tags=st.sampled_from([(), ("think",), ("think", "thought")]),
    think_tag_is_implied=st.booleans(),
    think_tags_repeat=st.booleans(),
    thought_signatures=st.booleans(),
    merge_choices=st.booleans(),
    text_tool_calls=st.sampled_from(["always", "never"]),
)


def new_decoder(dialect: Dialect) -> ResponseDecoder:
    numbers = iter(range(1, 10_000))
    context = ResponseContext(
        model="asked",
        upstream_model="m",
        tools=offered() if dialect.text_tool_calls == "always" else None,
        used_ids=USED_IDS,
        stop_sequences=("STOP",),
    )
    codec = OpenAIStream(context, dialect, lambda prefix: f"{prefix}{next(numbers)}", lambda name: None)
    return ResponseDecoder(codec, max_body_bytes=1 << 20)


def client_stream(dialect: Dialect, parts: list[bytes]) -> bytes | tuple[type[ProxyError], str]:
    """The client's stream; or the error, if nothing was written."""
    decoder = new_decoder(dialect)
    stream = b""
    try:
        for part in parts:
            if not decoder.has_ended:
                stream += decoder.feed(part)
        if not decoder.has_ended:
            stream += decoder.close()
    except ProxyError as exc:
        assert not stream
        return type(exc), exc.message
    assert decoder.has_ended
    return stream


def assert_legal(stream: bytes) -> None:
    grammar, kinds, tool_ids = Grammar(), [], list(USED_IDS)
    for kind, text in read_events(stream):
        data = json.loads(text)
        grammar.accept(event_from_data(data))
        kinds.append(kind)
        if kind == "content_block_start" and data["content_block"]["type"] == "tool_use":
            tool_ids.append(data["content_block"]["id"])
        elif kind == "message_delta":
            assert data["delta"]["stop_reason"]
            assert all(count >= 0 for count in data["usage"].values() if isinstance(count, int))
    assert grammar.has_ended
    assert kinds[0] == "message_start"
    assert kinds.count("message_stop") + kinds.count("error") == 1
    assert len(set(tool_ids)) == len(tool_ids)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


cuts = st.lists(st.integers(0, 10_000), max_size=8)


@given(st.lists(chunks, max_size=8), st.booleans(), dialects, cuts)
@settings(max_examples=examples(150), deadline=None)
def test_any_chunks_give_a_legal_stream_or_one_error(
    sent: list[Any], is_done: bool, dialect: Dialect, places: list[int]
) -> None:
    stream = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in sent)
    stream += b"data: [DONE]\n\n" if is_done else b""
    whole = client_stream(dialect, [stream])
    assert client_stream(dialect, cut(stream, places)) == whole
    if isinstance(whole, bytes):
        assert_legal(whole)


@given(chunks, dialects)
@settings(max_examples=examples(150), deadline=None)
def test_any_json_body_gives_a_legal_stream_or_one_error(body: Any, dialect: Dialect) -> None:
    whole = client_stream(dialect, [json.dumps(body).encode()])
    if isinstance(whole, bytes):
        assert_legal(whole)


SEEDS = [
    b"data: ",
    b"event: error\n",
    b"\n\n",
    b"\r",
    b"[DONE]",
    b'{"choices":[{"delta":{"content":"',
    b'"}}]}',
    b"\xef\xbb\xbf",
]


@given(st.lists(st.binary(max_size=12) | st.sampled_from(SEEDS), max_size=12), cuts)
@settings(max_examples=examples(150), deadline=None)
def test_any_bytes_give_a_legal_stream_or_one_error(sent: list[bytes], places: list[int]) -> None:
    stream = b"".join(sent)
    whole = client_stream(Dialect(), [stream])
    assert client_stream(Dialect(), cut(stream, places)) == whole
    if isinstance(whole, bytes):
        assert_legal(whole)


# -- nothing lost, nothing out of order

#: One step of a message: more text, more thinking, or the next fragment of one of three calls.
steps = st.lists(st.tuples(st.sampled_from(["text", "thinking", 0, 1, 2]), st.integers(1, 5)), max_size=40)
objects = st.dictionaries(texts, texts | st.integers(0, 9) | st.lists(texts, max_size=2), max_size=3)


@given(
    steps,
    st.lists(objects, min_size=3, max_size=3),
    st.text('abc <>{}"\\\n é👋', max_size=60),
    st.text("xyz \n", max_size=60),
    st.booleans(),
    st.sampled_from(["stop", "tool_calls", "length"]),
)
@settings(max_examples=examples(120), deadline=None)
def test_text_thinking_and_arguments_arrive_whole_and_in_order(
    plan: list[tuple[Any, int]],
    inputs: list[dict[str, Any]],
    text: str,
    thinking: str,
    has_signatures: bool,
    finish: str,
) -> None:
    """Fragments of up to three calls, mixed in any way with text and thinking."""
    left = {"text": text, "thinking": thinking, **{n: json.dumps(each) for n, each in enumerate(inputs)}}
    begun: list[int] = []
    sent: list[dict[str, Any]] = []

    def send(kind: Any, size: int) -> None:
        part, left[kind] = left[kind][:size], left[kind][size:]
        if kind == "text":
            sent.append({"content": part})
        elif kind == "thinking":
            sent.append({"reasoning_content": part})
        else:
            fragment: dict[str, Any] = {"index": kind, "function": {"arguments": part}}
            if kind not in begun:
                begun.append(kind)
                fragment["id"], fragment["function"]["name"] = f"c{kind}", f"Tool{kind}"
            sent.append({"tool_calls": [fragment]})

    for kind, size in plan:
        send(kind, size)
    for kind in [*begun, "text", "thinking"]:
        send(kind, 10_000)
    body = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in sent]
    body.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    stream = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in body)
    seen = client_stream(Dialect(thought_signatures=has_signatures), [stream])
    assert isinstance(seen, bytes)
    assert_legal(seen)
    content = message_of(seen)["content"]
    assert "".join(block["text"] for block in content if block["type"] == "text") == text
    thought = "".join(block["thinking"] for block in content if block["type"] == "thinking")
    assert thinking.startswith(thought)
    if content and content[-1]["type"] != "text":
        assert thought == thinking, "only what follows the last text is dropped"
    kinds = " ".join(block["type"] for block in content)
    assert "text thinking text" not in kinds, "short reasoning does not divide a text"
    calls = [(block["name"], json.loads(block["input"])) for block in content if block["type"] == "tool_use"]
    assert calls == [(f"Tool{number}", inputs[number]) for number in begun]


@given(
    st.lists(
        st.tuples(st.booleans(), st.text("ab <>/think\n", min_size=1, max_size=20)), min_size=1, max_size=6
    ),
    st.lists(st.integers(0, 300), max_size=10),
    st.booleans(),
)
@settings(max_examples=examples(120), deadline=None)
def test_think_tags_are_separated_at_any_cut(
    runs: list[tuple[bool, str]], places: list[int], has_calls: bool
) -> None:
    content, thoughts, texts_seen = "", "", ""
    for is_thinking, run in runs:
        run = run.replace("<think>", "").replace("</think>", "")
        if is_thinking:
            content += f"<think>{run}</think>\n"
            thoughts += run
        else:
            run = "." + run.strip() + "."  # white space between tags is no text
            content += run
            texts_seen += run
    edges = sorted({0, len(content), *(place % (len(content) + 1) for place in places)})
    deltas = [{"content": content[start:end]} for start, end in itertools.pairwise(edges)]
    if has_calls:
        deltas.append({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "T", "arguments": "{}"}}]})
    body = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    body.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    stream = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in body)
    seen = client_stream(Dialect(think_tags=("think",), think_tags_repeat=True), [stream])
    assert isinstance(seen, bytes)
    content = message_of(seen)["content"]
    thought = "".join(block["thinking"] for block in content if block["type"] == "thinking")
    assert thoughts.startswith(thought)
    assert thought == thoughts or not has_calls, "only what follows the last text is dropped"
    assert "".join(block["text"] for block in content if block["type"] == "text") == texts_seen
