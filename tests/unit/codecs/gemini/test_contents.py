"""Contents of the Gemini API: turns, calls and results, images, signatures."""

from __future__ import annotations

from typing import Any

import pytest

from proxyd.codecs.anthropic.thinking_signature import encode_signature
from proxyd.codecs.formats import GEMINI
from proxyd.codecs.gemini.request import translation
from proxyd.codecs.translation.translated import RequestOptions, Translated, run_to_end
from proxyd.errors import ClientError
from proxyd.providers.registry import PROFILES, dialect_for
from tests.support.strict_gemini import validate

MODEL = "gemini-3-pro"
PNG = "iVBORw0KGgo="
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
PLACEHOLDER = "skip_thought_signature_validator"


def translated(
    *messages: Any, model: str = MODEL, refused: tuple[str, ...] = (), **quirks: Any
) -> Translated:
    payload = {"model": "x", "max_tokens": 9, "messages": list(messages)}
    dialect = dialect_for(PROFILES["gemini"], model, quirks, GEMINI)
    options = RequestOptions(model, True, is_refused=lambda data: data in refused)
    made = run_to_end(translation(payload, dialect, options))
    wants_signatures = model == MODEL and quirks.get("thought_signature_placeholder", "") is not None
    assert validate(made.body, wants_signatures=wants_signatures) == []
    return made


def contents(*messages: Any, **options: Any) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = translated(*messages, **options).body["contents"]
    return made


def user(*blocks: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(blocks)}


def assistant(*blocks: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": list(blocks)}


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def use(id: str = "i1", name: str = "Read", **value: Any) -> dict[str, Any]:
    return {"type": "tool_use", "id": id, "name": name, "input": value}


def result(id: str = "i1", content: Any = "ok", **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": id, "content": content, **more}


def thinking(words: str = "", model: str = MODEL, **signed: Any) -> dict[str, Any]:
    signature = encode_signature(
        model, "thought", None, signed.get("calls"), part_signatures=signed.get("parts")
    )
    return {"type": "thinking", "thinking": words, "signature": signature}


def part_of_call(content: dict[str, Any]) -> dict[str, Any]:
    return next(part for part in content["parts"] if "functionCall" in part)


# -- turns


def test_neighbours_of_one_role_are_one_content() -> None:
    made = contents(
        user(text("a")), user(text("b")), assistant(text("c")), assistant(text("d")), user(text("e"))
    )
    assert [(each["role"], [part["text"] for part in each["parts"]]) for each in made] == [
        ("user", ["a", "b"]),
        ("model", ["c", "d"]),
        ("user", ["e"]),
    ]


def test_messages_whose_content_is_a_text() -> None:
    made = contents({"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, user(text("c")))
    assert [each["parts"] for each in made] == [[{"text": "a"}], [{"text": "b"}], [{"text": "c"}]]


def test_a_conversation_begins_with_the_user_and_has_one() -> None:
    assert [each["role"] for each in contents(assistant(text("a")), user(text("b")))] == [
        "user",
        "model",
        "user",
    ]
    assert contents(user(text(" ")))[0] == {"role": "user", "parts": [{"text": "(no content)"}]}


def test_a_turn_of_the_model_without_content_is_left_out() -> None:
    made = contents(user(text("a")), assistant(thinking("hm", "other")), user(text("b")))
    assert made == [{"role": "user", "parts": [{"text": "a"}, {"text": "b"}]}]


def test_system_messages_are_reminders() -> None:
    made = contents(
        user(text("a")), {"role": "system", "content": "Be brief."}, assistant(text("b")), user(text("c"))
    )
    assert "Be brief." in made[0]["parts"][1]["text"]
    assert len(made) == 3


def test_a_system_message_stays_where_it_is_if_a_quirk_says_so() -> None:
    made = contents(
        user(text("a")),
        {"role": "system", "content": "Be brief."},
        assistant(text("b")),
        leading_system_only=False,
    )
    assert made[0]["parts"] == [{"text": "a"}, {"text": "Be brief."}]


# -- calls and results


def test_results_are_named_and_in_the_order_of_their_calls() -> None:
    made = contents(
        user(text("go")),
        assistant(use("i1", "Read", a=1), use("i2", "Bash", b=2), use("i3", "Read", c=3)),
        user(text("note"), result("i3", "3"), result("i1", "1", is_error=True), result("i2", "2")),
    )
    assert [part["functionCall"] for part in made[1]["parts"]] == [
        {"name": "Read", "args": {"a": 1}},
        {"name": "Bash", "args": {"b": 2}},
        {"name": "Read", "args": {"c": 3}},
    ]
    assert made[2]["parts"] == [
        {"functionResponse": {"name": "Read", "response": {"error": "1"}}},
        {"functionResponse": {"name": "Bash", "response": {"output": "2"}}},
        {"functionResponse": {"name": "Read", "response": {"output": "3"}}},
        {"text": "note"},
    ]


def test_a_call_without_result_gets_one() -> None:
    made = contents(user(text("go")), assistant(use("i1"), use("i2", "Bash")), user(result("i2")))
    names = [part["functionResponse"]["name"] for part in made[2]["parts"]]
    assert names == ["Read", "Bash"]
    assert "error" in made[2]["parts"][0]["functionResponse"]["response"]


def test_a_call_at_the_end_gets_a_result() -> None:
    assert contents(user(text("go")), assistant(use("i1")))[-1]["role"] == "user"


def test_results_in_several_messages_are_one_content() -> None:
    made = contents(
        user(text("go")), assistant(use("i1"), use("i2")), user(result("i1")), user(result("i2"), text("x"))
    )
    assert len(made) == 3
    assert ["functionResponse" in part for part in made[2]["parts"]] == [True, True, False]


def test_a_result_without_call_is_text() -> None:
    made = contents(user(text("go"), result("none", "lost", is_error=True)))
    assert [part["text"] for part in made[0]["parts"]] == [
        "go",
        "Result of an earlier tool call:",
        "Error: lost",
    ]


@pytest.mark.parametrize("content", ["", [], None, [text(" ")]])
def test_an_empty_result(content: Any) -> None:
    made = contents(user(text("go")), assistant(use("i1")), user(result("i1", content)))
    assert made[2]["parts"][0]["functionResponse"]["response"] == {"output": "(no output)"}


@pytest.mark.parametrize(
    ("value", "args"), [(None, {}), ("x", {"input": "x"}), ({"n": float("nan")}, {"n": None})]
)
def test_arguments_are_an_object(value: Any, args: Any) -> None:
    block = {**use("i1"), "input": value}
    made = contents(user(text("go")), assistant(block), user(result("i1")))
    assert part_of_call(made[1])["functionCall"]["args"] == args


def test_names_are_those_of_the_tools() -> None:
    name = "mcp__" + "x" * 90
    made = contents(user(text("go")), assistant(use("i1", name)), user(result("i1")))
    short = part_of_call(made[1])["functionCall"]["name"]
    assert len(short) <= 64
    assert made[2]["parts"][0]["functionResponse"]["name"] == short


def test_ids_of_the_vendor_alone_go_back() -> None:
    own = assistant(thinking(calls={"i1": "sigA"}), use("i1"), use("toolu_01", "Bash"))
    foreign = assistant(use("call_9"))
    made = contents(
        user(text("go")), own, user(result("i1"), result("toolu_01")), foreign, user(result("call_9"))
    )
    assert [part["functionCall"].get("id") for part in made[1]["parts"]] == ["i1", None]
    assert [part["functionResponse"].get("id") for part in made[2]["parts"]] == ["i1", None]
    assert "id" not in made[3]["parts"][0]["functionCall"]
    without = contents(user(text("go")), own, user(result("i1"), result("toolu_01")), function_call_ids=False)
    assert "id" not in part_of_call(without[1])["functionCall"]


def test_an_encoded_id_goes_back_as_the_vendor_wrote_it() -> None:
    client_id = "toolu_cpx_cHJvamVjdHMvMTpjYWxs"
    made = contents(
        user(text("go")),
        assistant(thinking(calls={client_id: "sigA"}), use(client_id)),
        user(result(client_id)),
    )
    assert part_of_call(made[1])["functionCall"]["id"] == "projects/1:call"


# -- images and documents


def test_images_of_the_user() -> None:
    url = {"type": "image", "source": {"type": "url", "url": "https://x.example/a.webp?b=1"}}
    made = contents(user(text("see"), IMAGE, url))
    assert made[0]["parts"][1:] == [
        {"inlineData": {"mimeType": "image/png", "data": PNG}},
        {"fileData": {"mimeType": "image/webp", "fileUri": "https://x.example/a.webp?b=1"}},
    ]


def test_documents() -> None:
    source = {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}
    made = contents(user({"type": "document", "source": source}))
    assert made[0]["parts"] == [{"inlineData": {"mimeType": "application/pdf", "data": "JVBERi0="}}]


@pytest.mark.parametrize("content", [[IMAGE], [text("a picture"), IMAGE]])
def test_images_in_results(content: list[Any]) -> None:
    conversation = user(text("go")), assistant(use("i1")), user(result("i1", content))
    (part,) = contents(*conversation)[2]["parts"]
    assert part["functionResponse"]["parts"] == [{"inlineData": {"mimeType": "image/png", "data": PNG}}]
    held, label, image = contents(*conversation, model="gemini-2.5-pro")[2]["parts"]
    assert "parts" not in held["functionResponse"]
    assert label == {"text": "Image from tool Read:"}
    assert "inlineData" in image


def test_a_model_without_vision_gets_words() -> None:
    made = contents(user(IMAGE), vision=False)
    assert "cannot see" in made[0]["parts"][0]["text"]


# -- signatures


def test_each_call_of_each_turn_has_its_own_signature() -> None:
    """Not those of the current turn alone: else the beginning of the next request would be another one."""
    made = contents(
        user(text("go")),
        assistant(thinking("hm", calls={"i1": "sigA"}), use("i1"), use("i2", "Bash")),
        user(result("i1"), result("i2")),
        assistant(thinking(calls={"i3": "sigB"}), use("i3")),
        user(result("i3")),
        assistant(text("done")),
        user(text("next")),
    )
    signatures = [
        [part.get("thoughtSignature") for part in each["parts"]] for each in made if each["role"] == "model"
    ]
    assert signatures == [["sigA", None], ["sigB"], [None]]
    assert "hm" not in str(made)


def test_a_call_of_another_model_has_a_placeholder() -> None:
    conversation = (
        user(text("go")),
        assistant(thinking("hm", "gemini-3-flash", calls={"i1": "sigA"}), use("i1"), use("i2")),
        user(result("i1"), result("i2")),
    )
    assert [part.get("thoughtSignature") for part in contents(*conversation)[1]["parts"]] == [
        PLACEHOLDER,
        None,
    ]
    assert "'id'" not in str(contents(*conversation)[1])
    before_3 = contents(*conversation, model="gemini-2.5-pro")
    assert "thoughtSignature" not in str(before_3)
    without = contents(*conversation, thought_signature_placeholder=None)
    assert "thoughtSignature" not in str(without)


def test_a_refused_signature_is_replaced_and_the_others_stay() -> None:
    made = contents(
        user(text("go")),
        assistant(thinking(calls={"i1": "sigA"}), use("i1")),
        user(result("i1")),
        assistant(thinking(calls={"i2": "sigB"}), use("i2")),
        user(result("i2")),
        refused=("sigA",),
    )
    assert [part_of_call(made[at])["thoughtSignature"] for at in (1, 3)] == [PLACEHOLDER, "sigB"]


def test_no_signature_goes_back_where_a_quirk_says_so() -> None:
    made = contents(
        user(text("go")),
        assistant(thinking(calls={"i1": "sigA"}), use("i1")),
        user(result("i1")),
        signed_data=False,
    )
    assert part_of_call(made[1])["thoughtSignature"] == PLACEHOLDER


def test_signatures_of_texts_and_thoughts_stay_with_their_parts() -> None:
    made = contents(
        user(text("go")),
        assistant(
            thinking("hm", parts={"thought": "sigT"}), thinking(parts={"text": "sigX"}), text("a"), text("b")
        ),
        user(text("on")),
    )
    assert made[1]["parts"] == [
        {"text": "hm", "thought": True, "thoughtSignature": "sigT"},
        {"text": "a", "thoughtSignature": "sigX"},
        {"text": "b"},
    ]
    refused = contents(
        user(text("go")), assistant(thinking("hm", parts={"thought": "sigT"}), text("a")), refused=("sigT",)
    )
    assert refused[1]["parts"] == [{"text": "a"}]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "thinking", "thinking": "hm", "signature": "c2ln"},
        {"type": "thinking", "thinking": None, "signature": 5},
        {"type": "redacted_thinking", "data": "cpx1.e30"},
        {"type": "thinking"},
        "text",
        None,
        7,
        {"type": "fallback"},
        {"type": "server_tool_use", "name": "web_search", "input": {"query": "x"}},
        IMAGE,
        result("none"),
    ],
)
def test_any_block_of_the_assistant(block: Any) -> None:
    made = contents(user(text("go")), assistant(block, text("a")), user(text("on")))
    assert [each["role"] for each in made] == ["user", "model", "user"]


def test_a_malformed_message_is_refused() -> None:
    with pytest.raises(ClientError):
        translated({"role": "model", "content": "x"})
