"""Anonymized bodies: no private word survives, and the translation makes the same events of them."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from proxyd import errors
from proxyd.codecs.anthropic.thinking_signature import decode_signature, encode_signature
from proxyd.codecs.formats import CHAT, FORMATS, GEMINI, Format
from proxyd.codecs.upstream_errors.errors import refusal
from proxyd.replay.anonymizer import LOREM, Anonymizer, anonymize_body
from proxyd.replay.json_strings import find_strings
from proxyd.replay.vocabulary import ERROR_WORDS, PROTOCOL_WORDS
from tests.support import goldens_requests, goldens_streams
from tests.support.effort import examples
from tests.support.error_cases import CASES, context_of, read_case
from tests.support.rows import check_rows
from tests.support.sse_reader import read_events
from tests.support.streams import DIRECT, TRANSLATED


def kinds(outcome: goldens_streams.Outcome) -> list[str]:
    if outcome.refusal is not None:
        return [f"refused {outcome.refusal['status']} {outcome.refusal['body']['error']['type']}"]
    return [kind for kind, _ in read_events(outcome.stream)]


def anonymized_case(name: str) -> goldens_streams.Case:
    case, filler = goldens_streams.load(name), Anonymizer()
    request = filler.value(case.request)
    return goldens_streams.Case(
        name, anonymize_body(case.upstream, filler), case.model_name, case.quirks, request
    )


#: A reason that nobody knows is told by its words, and a call that comes again by its arguments.
_WORDS_OF_GEMINI = ("stop_sequence", "stop_sequence_not_complete", "finish_unknown_failure", "call_repeated")


def _depends_on_words(name: str, format_: Format) -> bool:
    """Whether other words make other events: a stop sequence or a tool call in the text, an end that says more."""
    case = name.split("/")[-1]
    if format_ is CHAT:
        return case.startswith(("text_call_", "text_like_"))
    if format_ is GEMINI:
        return case in _WORDS_OF_GEMINI
    return case in ("stop_sequence", "stop_sequence_not_there", "end_says_more")


TRANSCRIPTS = [
    name
    for each in FORMATS.values()
    for name in goldens_streams.cases(each)
    if not _depends_on_words(name, each)
]


def test_anonymized_transcripts_make_the_same_events() -> None:
    def check(name: str) -> None:
        case, filled = goldens_streams.load(name), anonymized_case(name)
        assert len(filled.upstream) == len(case.upstream)
        before = kinds(goldens_streams.play(case.new_decoder(), [case.upstream]))
        assert kinds(goldens_streams.play(filled.new_decoder(), [filled.upstream])) == before

    check_rows(TRANSCRIPTS, check)


def test_direct_stream_keeps_its_events() -> None:
    body = b"".join(DIRECT.values())
    filled = anonymize_body(body, Anonymizer())
    assert len(filled) == len(body)
    then, now = read_events(body), read_events(filled)
    assert [kind for kind, _ in now] == [kind for kind, _ in then]
    for _, data in now:
        json.loads(data)


def shape(value: Any) -> Any:
    """Types, keys that are protocol, and lengths."""
    if isinstance(value, dict):
        return {key if key in PROTOCOL_WORDS else len(key): shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return len(value) if isinstance(value, str) else type(value).__name__


def test_requests_keep_their_shape() -> None:
    def check(name: str) -> None:
        payload = json.loads((goldens_requests.ROOT / f"{name}.request.json").read_text("utf-8"))
        filled = Anonymizer().value(payload)

        def without_signatures(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: without_signatures(item) for key, item in value.items() if key != "signature"}
            return [without_signatures(item) for item in value] if isinstance(value, list) else value

        assert shape(without_signatures(filled)) == shape(without_signatures(payload))

    check_rows(goldens_requests.cases(), check)


# -- nothing survives

#: Words of people, in any script. Filler could by chance be as short ones.
_LATIN = st.text("abcdefghijklmnopqrstuvwxyz", min_size=9, max_size=14)
_WORDS = st.one_of(
    _LATIN,
    _LATIN.map(str.capitalize),
    st.text("äöüßéñřžабвгд", min_size=4, max_size=9),
    st.text("日本中文字汉語한국", min_size=4, max_size=8),
).filter(lambda word: not is_generic(word))


def is_generic(word: str) -> bool:
    """The translation's own, or the filler's."""
    lowered = word.lower()
    return (
        lowered in LOREM * 2
        or lowered in ERROR_WORDS
        or any(lowered in each.lower() for each in PROTOCOL_WORDS)
        or set(word) <= set("é語")
    )


def assert_gone(words: list[str], data: bytes) -> None:
    """Not as they were, not as escapes, and not in another case."""
    text = data.decode("utf-8", "replace")
    unescaped = re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), text)
    for word in words:
        for seen in (text, unescaped):
            assert word.lower() not in seen.lower(), word


def request_of(words: list[str]) -> dict[str, Any]:
    """Each word at every place of a request where a word can be."""
    one, two, three, four = words
    return {
        "model": one,
        "max_tokens": 5,
        "system": [
            {"type": "text", "text": f"You are {one}.", "cache_control": {"type": "ephemeral"}},
            {"type": two},
        ],
        "metadata": {"user_id": two, three: four},
        three: {four: [one, {two: three}]},
        "stop_sequences": [one, two],
        "tools": [
            {
                "name": f"mcp__{one}__{two}",
                "description": f"Reads {three} of /home/{four}",
                "input_schema": {
                    "type": "object",
                    "title": one,
                    "properties": {
                        two: {"type": "string", "enum": [three], "description": four, "default": one}
                    },
                    "required": [two],
                    "$defs": {three: {"type": "object", "pattern": f"^{four}$"}},
                },
            }
        ],
        "tool_choice": {"type": "tool", "name": f"mcp__{one}__{two}"},
        "messages": [
            {"role": "user", "content": f'{one} {two}\n"{three}" <{four}>'},
            {
                "role": "assistant",
                "content": [
                    {
                        "type": "thinking",
                        "thinking": one,
                        "signature": encode_signature(
                            two,
                            "reasoning",
                            [{"type": three, "text": four}],
                            {one: two},
                            response_item={"encrypted_content": three, "phase": "commentary"},
                        ),
                    },
                    {"type": "thinking", "thinking": "", "signature": three + four},
                    {"type": "text", "text": two, "citations": [{"cited_text": three}]},
                    {
                        "type": "tool_use",
                        "id": f"toolu_{one}",
                        "name": f"mcp__{one}__{two}",
                        "input": {three: f"C:\\{four}\\{one}", four: [two, {one: 5550100200}], "type": two},
                    },
                ],
            },
            {
                "role": "user",
                "content": [
                    {
                        "type": "tool_result",
                        "tool_use_id": f"toolu_{one}",
                        "content": f"Error: {two}",
                        "is_error": True,
                    },
                    {
                        "type": "image",
                        "source": {"type": "url", "url": f"https://{three}.example/{four}.png"},
                    },
                    {"type": "document", "title": one, "source": {"type": "text", "data": two}},
                ],
            },
        ],
    }


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(_WORDS, min_size=4, max_size=4, unique=True))
def test_no_word_of_a_request_survives(words: list[str]) -> None:
    filled = Anonymizer().value(request_of(words))
    data = json.dumps(filled, ensure_ascii=False).encode("utf-8", "surrogatepass")
    assert_gone(words, data)
    assert b"5550100200" not in data
    thinking = filled["messages"][1]["content"][0]["signature"]
    found = decode_signature(thinking)
    assert found is not None, "still one of ours"
    assert_gone(words, repr(found).encode())
    tool = filled["tools"][0]
    used = filled["messages"][1]["content"][3]
    assert used["name"] == tool["name"] == filled["tool_choice"]["name"]
    assert used["id"] == filled["messages"][2]["content"][0]["tool_use_id"]
    assert tool["input_schema"]["required"] == [*tool["input_schema"]["properties"]]


def stream_of(words: list[str], cuts: list[int], *, direct: bool) -> bytes:
    """The words in text, reasoning, a call's name, id and arguments, and where nobody expects them, in pieces."""
    one, two, three, four = words
    text = f"Dear {one}, see /home/{two}/{three}.txt <think> {four}"
    arguments = json.dumps({one: two, "path": f'a\n{three}\\{four}\t"{one}"', "n": [1, True, None]})
    frames: list[dict[str, Any]] = []

    def pieces(whole: str) -> list[str]:
        edges = sorted({0, len(whole), *(cut % (len(whole) + 1) for cut in cuts)})
        return [whole[start:end] for start, end in itertools.pairwise(edges)]

    if direct:
        for index, (kind, key, whole) in enumerate(
            (("text", "text", text), ("thinking", "thinking", text), ("tool_use", "partial_json", arguments))
        ):
            block = {"type": kind, "id": f"toolu_{one}", "name": two}
            frames.append({"type": "content_block_start", "index": index, "content_block": block})
            for chunk in pieces(whole):
                delta = {"type": f"{kind}_delta", key: chunk}
                frames.append({"type": "content_block_delta", "index": index, "delta": delta})
    else:

        def add(delta: dict[str, Any], **more: Any) -> None:
            frames.append({"id": one, "model": two, "choices": [{"index": 0, "delta": delta}], **more})

        for chunk in pieces(text):
            add({"reasoning_content": chunk})
            add({"content": chunk, three: four})
        function = {"name": f"mcp__{one}", "arguments": ""}
        add({"tool_calls": [{"index": 0, "id": f"call_{two}", "type": "function", "function": function}]})
        for chunk in pieces(arguments):
            add({"tool_calls": [{"index": 0, "function": {"arguments": chunk}}]}, system_fingerprint=three)
    dumped = [json.dumps(frame, ensure_ascii=bool(cuts and cuts[0] % 2)) for frame in frames]
    lines = [
        f"event: {one}\n" * (number % 3 == 0) + f"data: {each}\n\n" for number, each in enumerate(dumped)
    ]
    rest = (
        f': {two} is busy\n\ndata: no json but {three}\n\ndata: {{"choices": [{{"delta": {{"content": "{four}'
    )
    return ("".join(lines) + rest).encode()


@settings(max_examples=examples(60), deadline=None)
@given(
    st.lists(_WORDS, min_size=4, max_size=4, unique=True),
    st.lists(st.integers(0, 200), max_size=6),
    st.booleans(),
)
@example(["firstplantedone", "secondplanted", "thirdplanted", "fourthplanted"], [3, 9, 14, 41], False)
def test_no_word_of_a_stream_survives(words: list[str], cuts: list[int], direct: bool) -> None:
    body = stream_of(words, cuts, direct=direct)
    filled = anonymize_body(body, Anonymizer())
    assert len(filled) == len(body)
    assert_gone(words, filled)
    said: dict[str, str] = {}
    for line in filled.decode().split("\n"):
        if line.startswith("data: {") and line.endswith("}"):
            for part in find_strings(line[6:]):
                said[part.keys[-1] if part.keys else ""] = (
                    said.get(part.keys[-1] if part.keys else "", "") + part.text
                )
    for joined in said.values():  # nor when the pieces are put together
        assert_gone(words, joined.encode("utf-8", "surrogatepass"))
    whole = said["partial_json" if direct else "arguments"]
    assert json.loads(whole), "still JSON, whatever its pieces cut in two"


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(_WORDS, min_size=3, max_size=3, unique=True))
def test_no_word_of_any_other_body_survives(words: list[str]) -> None:
    one, two, three = words
    error = {
        "error": {
            "message": f"{one} is too long for {two}: maximum context length is 8192 tokens",
            "code": three,
        }
    }
    for body in (
        f"<html><title>{one}</title>{two} {three}</html>".encode(),
        f"{one}\r\n{two} {three}".encode(),
        json.dumps({"choices": [{"message": {"content": one, two: three}}]}).encode(),
        json.dumps(error).encode(),
        json.dumps(error)[:-5].encode(),
        f"data: {one}\rdata: {two}\r\rid: {three}\r\r".encode(),
        b"".join((b"\xef\xbb\xbfdata: ", json.dumps({"a": one, two: three}).encode(), b"\n\n")),
    ):
        filled = anonymize_body(body, Anonymizer())
        assert len(filled) == len(body)
        assert_gone(words, filled)


def test_error_message_keeps_cause_and_numbers() -> None:
    body = b'{"error": {"message": "This model\'s maximum context length is 8192 tokens, Alexander", "code": "1234"}}'
    filled = anonymize_body(body, Anonymizer()).decode()
    assert "maximum context length is 8192 tokens" in filled
    assert '"1234"' in filled
    assert "Alexander" not in filled


@given(st.binary(max_size=300))
def test_length_of_any_bytes_stays(body: bytes) -> None:
    assert len(anonymize_body(body, Anonymizer())) == len(body)


def test_names_stay_distinct_and_consistent() -> None:
    filler = Anonymizer()
    names = [f"tool_{number}" for number in range(300)]
    filled = [filler.name(name) for name in names]
    assert len(set(filled)) == len(names)
    assert [filler.name(name) for name in names] == filled


def private_words(text: str, keep: frozenset[str]) -> set[str]:
    """The words of a body that are neither the protocol's nor the filler's, in lower case."""
    words = {word.lower() for word in re.findall(r"[A-Za-z]{8,}", text)}
    public = {part.lower() for word in PROTOCOL_WORDS for part in re.findall(r"[A-Za-z]+", word)}
    return {word for word in words - public - keep if word not in LOREM * 2}


def test_no_private_word_of_a_transcript_survives() -> None:
    def check(name: str) -> None:
        case = goldens_streams.load(name)
        text = case.upstream.decode("utf-8", "replace")
        filled = anonymize_body(case.upstream, Anonymizer()).decode("utf-8", "replace").lower()
        assert [word for word in private_words(text, ERROR_WORDS) if word in filled] == []

    check_rows(goldens_streams.cases(), check)


def test_no_private_word_of_a_request_transcript_survives() -> None:
    def check(name: str) -> None:
        text = (goldens_requests.ROOT / f"{name}.request.json").read_text("utf-8")
        filled = json.dumps(Anonymizer().value(json.loads(text))).lower()
        text = re.sub(r'"signature": *"[^"]*"', "", text)  # base64, of the protocol's keys too
        assert [word for word in private_words(text, frozenset()) if word in filled] == []

    check_rows(goldens_requests.cases(), check)


def test_anonymized_error_is_the_same_error() -> None:
    def check(path: Path) -> None:
        case = read_case(path)
        body = case["body"] if isinstance(case["body"], str) else json.dumps(case["body"])
        filled = anonymize_body(body.encode(), Anonymizer())
        seen = [
            errors.error_response(refusal(case["status"], case["headers"], each, context_of(case)))
            for each in (body.encode(), filled)
        ]
        assert seen[0] == seen[1], filled

    check_rows(CASES, check)


def test_keys_of_the_protocols_stay() -> None:
    frames = b"".join(TRANSLATED.values()) + b"".join(DIRECT.values())
    keys = set(re.findall(r'"([a-z_]+)": ', frames.decode())) - {"path"}
    assert keys <= PROTOCOL_WORDS
    assert {"tool_use", "tool_calls", "end_turn", "content_block_delta", "ephemeral"} <= PROTOCOL_WORDS
