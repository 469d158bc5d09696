"""Properties of generated Gemini streams: the client gets a legal stream or one error, wherever the bytes are cut; and
of well-formed parts nothing is lost, however they are spread over chunks."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.codecs.anthropic.events import event_from_data
from proxyd.codecs.anthropic.grammar import Grammar
from proxyd.codecs.anthropic.thinking_signature import decode_signature
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.gemini.finish import REASONS
from proxyd.codecs.gemini.stream import GeminiStream
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.translation.dialect import Dialect
from proxyd.errors import ProxyError
from tests.support.effort import examples
from tests.support.sse_reader import message_of, read_events

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)


def sometimes(value: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly a valid value, sometimes any JSON."""
    return st.one_of(value, value, value, junk)


calls = st.fixed_dictionaries(
    {},
    optional={
        "name": sometimes(st.sampled_from(["Read", "Bash", "default_api:Read", ""])),
        "args": sometimes(st.dictionaries(texts, junk, max_size=2)),
        "id": sometimes(st.sampled_from(["a1", "a2", ""])),
    },
)
parts = st.fixed_dictionaries(
    {},
    optional={
        "text": sometimes(st.sampled_from(["a", "\n", "", "ls}", " end"])),
        "thought": sometimes(st.booleans()),
        "thoughtSignature": sometimes(st.sampled_from(["s1", "s2", ""])),
        "functionCall": sometimes(calls),
        "inlineData": sometimes(st.just({"mimeType": "image/png", "data": "aGk="})),
        "executableCode": sometimes(st.just({"code": "1"})),
    },
)
candidates = st.fixed_dictionaries(
    {},
    optional={
        "content": sometimes(
            st.fixed_dictionaries({}, optional={"parts": sometimes(st.lists(parts, max_size=3))})
        ),
        "finishReason": sometimes(st.sampled_from([*REASONS, "FINISH_REASON_UNSPECIFIED"])),
        "finishMessage": sometimes(texts),
        "index": sometimes(st.integers(0, 1)),
    },
)
usages = st.fixed_dictionaries(
    {},
    optional={
        name: sometimes(st.integers(0, 99))
        for name in (
            "promptTokenCount",
            "candidatesTokenCount",
            "thoughtsTokenCount",
            "cachedContentTokenCount",
            "totalTokenCount",
        )
    },
)
chunks = st.fixed_dictionaries(
    {},
    optional={
        "candidates": sometimes(st.lists(candidates, max_size=2)),
        "usageMetadata": sometimes(usages),
        "promptFeedback": sometimes(st.just({"blockReason": "SAFETY"})),
        "modelVersion": texts,
        "error": st.none() | st.just({"code": 503, "message": "overloaded", "status": "UNAVAILABLE"}),
        "new": junk,
    },
)


def new_decoder(stops: tuple[str, ...] = (), retries_empty: bool = False) -> ResponseDecoder:
    numbers = itertools.count(1)
    codec = GeminiStream(
        ResponseContext(
            model="m",
            upstream_model="up",
            used_ids=("a1",),
            stop_sequences=stops,
            retries_empty=retries_empty,
        ),
        Dialect(),
        lambda prefix: f"{prefix}{next(numbers)}",
        lambda name: None,
    )
    return ResponseDecoder(codec, max_body_bytes=1 << 20)


def play(decoder: ResponseDecoder, pieces: list[bytes]) -> tuple[bytes, str]:
    out = b""
    try:
        for piece in pieces:
            if decoder.has_ended:
                break
            out += decoder.feed(piece)
        out += decoder.close()
    except ProxyError as exc:
        assert not out, "raised after events were returned"
        return b"", f"{type(exc).__name__}: {exc.message}"
    return out, ""


def frames(sent: list[Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(item).encode() + b"\r\n\r\n" for item in sent)


@settings(max_examples=examples(150), deadline=None)
@given(
    sent=st.lists(chunks, max_size=10),
    stops=st.sampled_from([(), ("a",), ("}", "ls")]),
    retries_empty=st.booleans(),
    as_array=st.booleans(),
    cuts=st.lists(st.integers(1, 400), max_size=6),
)
def test_any_chunks_give_a_legal_stream_or_one_error(
    sent: list[Any], stops: tuple[str, ...], retries_empty: bool, as_array: bool, cuts: list[int]
) -> None:
    data = json.dumps(sent).encode() if as_array else frames(sent)
    whole = play(new_decoder(stops, retries_empty), [data])
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    assert play(new_decoder(stops, retries_empty), pieces) == whole
    stream, error = whole
    if error:
        return
    grammar = Grammar()
    for _, event in read_events(stream):
        grammar.accept(event_from_data(json.loads(event)))
    assert grammar.has_ended


@settings(max_examples=examples(100), deadline=None)
@given(data=st.binary(max_size=400), cut=st.integers(0, 400))
def test_any_bytes_give_a_legal_stream_or_one_error(data: bytes, cut: int) -> None:
    for start in (b"", b"data: ", frames([{"candidates": [{"content": {"parts": [{"text": "Hi"}]}}]}])):
        whole = play(new_decoder(), [start + data])
        assert play(new_decoder(), [start + data[:cut], data[cut:]]) == whole


OUTPUTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("text"), st.text("abc \n", min_size=1, max_size=9).filter(lambda text: text.strip())
        ),
        st.tuples(st.just("thinking"), st.text("xyz", min_size=1, max_size=9)),
        st.tuples(st.just("tool_use"), st.sampled_from(['{"a":1}', "{}", '{"b":"}{"}'])),
    ),
    min_size=1,
    max_size=6,
)


def merged(output: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Neighbours of one kind are one block, but calls; thoughts at the end, behind a text, are dropped."""
    blocks: list[tuple[str, str]] = []
    for kind, text in output:
        if blocks and blocks[-1][0] == kind != "tool_use":
            blocks[-1] = (kind, blocks[-1][1] + text)
        else:
            blocks.append((kind, text))
    if len(blocks) > 1 and blocks[-1][0] == "thinking" and blocks[-2][0] == "text":
        blocks.pop()
    return blocks


@settings(max_examples=examples(120), deadline=None)
@given(output=OUTPUTS, sizes=st.lists(st.integers(1, 3), min_size=6, max_size=6), signed=st.booleans())
def test_nothing_of_an_output_is_lost_however_it_is_spread(
    output: list[tuple[str, str]], sizes: list[int], signed: bool
) -> None:
    sent: list[Any] = []
    signatures: dict[str, str] = {}
    for number, (kind, text) in enumerate(output):
        if kind == "tool_use":
            made: dict[str, Any] = {
                "functionCall": {"name": "Read", "args": json.loads(text), "id": f"i{number}"}
            }
            if signed:
                made["thoughtSignature"] = signatures[f"i{number}"] = f"s{number}"
            sent.append(made)
        else:
            more = {"thought": True} if kind == "thinking" else {}
            sent += [{"text": char, **more} for char in text]
    data, at = [], 0
    for size in itertools.cycle(sizes):
        if at >= len(sent):
            break
        data.append({"candidates": [{"content": {"role": "model", "parts": sent[at : at + size]}}]})
        at += size
    data.append({"candidates": [{"finishReason": "STOP"}]})
    decoder = new_decoder()
    message = message_of(decoder.feed(frames(data)) + decoder.close())
    found, returned = [], {}
    for block in message["content"]:
        if block["type"] == "thinking":
            signature = decode_signature(block["signature"])
            assert signature is not None
            returned.update(signature.tool_signatures)
            if not block["thinking"]:
                continue
        found.append((block["type"], block.get("text", block.get("thinking", block.get("input")))))
    assert found == merged(output)
    assert returned == signatures
    has_calls = any(kind == "tool_use" for kind, _ in output)
    assert message["stop_reason"] == ("tool_use" if has_calls else "end_turn")
