"""Properties of generated Responses streams: the client gets a legal stream or one error, wherever the bytes are cut;
and of well-formed items in any form in which servers send them nothing is lost."""

from __future__ import annotations

import itertools
import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.codecs.anthropic.events import event_from_data
from proxyd.codecs.anthropic.grammar import Grammar
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.response_decoder import ResponseDecoder
from proxyd.codecs.responses.stream import ResponsesStream
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


arguments = st.sampled_from(['{"p":1}', '{"p"', ":1}", "{}", "", "null", "}", '"\\u00', "[1]", "ls"]) | texts
kinds = st.sampled_from(["message", "reasoning", "function_call", "web_search_call", "new"])
parts = st.fixed_dictionaries(
    {"type": st.sampled_from(["output_text", "refusal", "summary_text", "reasoning_text"])},
    optional={"text": sometimes(texts), "refusal": sometimes(texts)},
)
items = st.fixed_dictionaries(
    {"type": sometimes(kinds)},
    optional={
        "id": texts,
        "call_id": sometimes(st.sampled_from(["call_1", "call_2", ""])),
        "name": sometimes(st.sampled_from(["Read", "Bash", ""])),
        "arguments": sometimes(arguments),
        "content": sometimes(st.lists(parts, max_size=2)),
        "summary": sometimes(st.lists(parts, max_size=2)),
        "encrypted_content": sometimes(st.sampled_from(["gAAA", ""])),
        "phase": sometimes(st.sampled_from(["commentary", "final_answer"])),
        "status": texts,
    },
)
responses = st.fixed_dictionaries(
    {},
    optional={
        "status": sometimes(st.sampled_from(["completed", "incomplete", "failed", "in_progress"])),
        "output": sometimes(st.lists(items, max_size=3)),
        "usage": sometimes(
            st.fixed_dictionaries({}, optional={"input_tokens": st.integers(0, 9), "output_tokens": junk})
        ),
        "error": st.none() | st.just({"code": "server_error", "message": "broken"}),
        "incomplete_details": sometimes(st.none() | st.just({"reason": "max_output_tokens"})),
    },
)
KINDS = [
    "response.created",
    "response.output_item.added",
    "response.output_item.done",
    "response.output_text.delta",
    "response.output_text.done",
    "response.refusal.delta",
    "response.refusal.done",
    "response.reasoning_summary_text.delta",
    "response.reasoning_summary_text.done",
    "response.reasoning_text.delta",
    "response.reasoning_text.done",
    "response.function_call_arguments.delta",
    "response.function_call_arguments.done",
    "response.content_part.done",
    "response.completed",
    "response.incomplete",
    "response.failed",
    "error",
    "response.new",
    "other",
]
events = st.fixed_dictionaries(
    {"type": sometimes(st.sampled_from(KINDS))},
    optional={
        "sequence_number": sometimes(st.integers(0, 20)),
        "output_index": sometimes(st.integers(0, 2)),
        "content_index": sometimes(st.integers(0, 1)),
        "summary_index": sometimes(st.integers(0, 1)),
        "item": sometimes(items),
        "part": sometimes(parts),
        "delta": sometimes(texts | arguments),
        "text": sometimes(texts),
        "refusal": sometimes(texts),
        "arguments": sometimes(arguments),
        "response": sometimes(responses),
        "error": st.none() | st.just({"message": "broken"}),
        "message": texts,
    },
)


def new_decoder(phases: bool = False, stops: tuple[str, ...] = ()) -> ResponseDecoder:
    numbers = itertools.count(1)
    codec = ResponsesStream(
        ResponseContext(model="m", upstream_model="up", used_ids=("call_1",), stop_sequences=stops),
        Dialect(message_phases=phases),
        lambda prefix: f"{prefix}{next(numbers)}",
        lambda name: None,
    )
    return ResponseDecoder(codec, max_body_bytes=1 << 20)


def play(decoder: ResponseDecoder, chunks: list[bytes]) -> tuple[bytes, str]:
    out = b""
    try:
        for chunk in chunks:
            if decoder.has_ended:
                break
            out += decoder.feed(chunk)
        out += decoder.close()
    except ProxyError as exc:
        assert not out, "raised after events were returned"
        return b"", f"{type(exc).__name__}: {exc.message}"
    return out, ""


def frames(sent: list[Any], with_names: bool) -> bytes:
    stream = b""
    for item in sent:
        name = str(item["type"])
        if with_names and name.isprintable() and name.isascii():
            stream += f"event: {name}\n".encode()
        stream += b"data: " + json.dumps(item).encode() + b"\n\n"
    return stream


@settings(max_examples=examples(120), deadline=None)
@given(
    sent=st.lists(events, max_size=14),
    with_names=st.booleans(),
    phases=st.booleans(),
    stops=st.sampled_from([(), ("a",), ("}", "ls")]),
    cuts=st.lists(st.integers(1, 400), max_size=6),
)
def test_any_events_give_a_legal_stream_or_one_error(
    sent: list[Any], with_names: bool, phases: bool, stops: tuple[str, ...], cuts: list[int]
) -> None:
    data = frames(sent, with_names)
    whole = play(new_decoder(phases, stops), [data])
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    assert play(new_decoder(phases, stops), pieces) == whole
    stream, error = whole
    if error:
        return
    grammar = Grammar()
    for _, event in read_events(stream):
        grammar.accept(event_from_data(json.loads(event)))
    assert grammar.has_ended


OUTPUTS = st.lists(
    st.one_of(
        st.tuples(
            st.just("message"), st.text("abc \n", min_size=1, max_size=9).filter(lambda text: text.strip())
        ),
        st.tuples(st.just("reasoning"), st.text("xyz", min_size=1, max_size=9)),
        st.tuples(st.just("function_call"), st.sampled_from(['{"a":1}', "{}", '{"b":"}{"}'])),
    ),
    min_size=1,
    max_size=5,
)
FORMS = st.lists(st.sampled_from(["deltas", "done", "item", "all", "announced"]), min_size=5, max_size=5)


def as_item(kind: str, text: str, number: int) -> dict[str, Any]:
    if kind == "message":
        return {"type": kind, "role": "assistant", "content": [{"type": "output_text", "text": text}]}
    if kind == "reasoning":
        return {
            "type": kind,
            "summary": [{"type": "summary_text", "text": text}],
            "encrypted_content": f"g{number}",
        }
    return {"type": kind, "call_id": f"id_{number}", "name": "Read", "arguments": text}


DELTAS = {
    "message": ("response.output_text", "text"),
    "reasoning": ("response.reasoning_summary_text", "text"),
    "function_call": ("response.function_call_arguments", "arguments"),
}


@settings(max_examples=examples(80), deadline=None)
@given(output=OUTPUTS, forms=FORMS, in_the_end=st.booleans(), whole=st.booleans())
def test_nothing_of_an_output_is_lost_in_whatever_form_it_comes(
    output: list[tuple[str, str]], forms: list[str], in_the_end: bool, whole: bool
) -> None:
    made = [as_item(kind, text, number) for number, (kind, text) in enumerate(output)]
    sent: list[Any] = []
    for number, ((kind, text), form, item) in enumerate(zip(output, forms, made, strict=False)):
        name, key = DELTAS[kind]
        if form != "item":
            empty = {"content": [], "summary": [], "arguments": ""}
            begun = {**item, **{field: value for field, value in empty.items() if field in item}}
            sent.append({"type": "response.output_item.added", "output_index": number, "item": begun})
        if form in ("deltas", "all", "announced"):
            sent += [{"type": f"{name}.delta", "output_index": number, "delta": char} for char in text]
        if form in ("done", "all"):
            sent.append({"type": f"{name}.done", "output_index": number, key: text})
        if form != "announced":
            sent.append({"type": "response.output_item.done", "output_index": number, "item": item})
    response = {"status": "completed", "output": made if in_the_end else []}
    sent.append({"type": "response.completed", "response": response})
    if whole:
        decoder, data = new_decoder(), json.dumps({**response, "output": made}).encode()
    else:
        decoder, data = new_decoder(), frames(sent, True)
    message = message_of(decoder.feed(data) + decoder.close())
    expected = [
        (
            {"message": "text", "reasoning": "thinking", "function_call": "tool_use"}[kind],
            text,
        )
        for kind, text in output
    ]
    found = [
        (block["type"], block.get("text", block.get("thinking", block.get("input"))))
        for block in message["content"]
    ]
    assert found == expected
    has_calls = any(kind == "function_call" for kind, _ in output)
    assert message["stop_reason"] == ("tool_use" if has_calls else "end_turn")
