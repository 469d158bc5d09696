"""Recognition of tool calls in the text: formats, look-alikes, code, repairs, bounds."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxyd.codecs.anthropic.message_collector import MessageCollector
from proxyd.codecs.codec import ResponseContext
from proxyd.codecs.openai.call_bodies import TextCall
from proxyd.codecs.openai.stream import OpenAIStream
from proxyd.codecs.openai.text_tool_calls import MAX_BODY, TextToolCalls
from proxyd.codecs.translation.dialect import Dialect
from tests.support.effort import EFFORT, examples
from tests.support.text_calls import CALLS, offered

#: A call in a result of `split`: the name and the arguments.
Call = tuple[str, Any]


def split(parts: list[str]) -> list[str | Call]:
    """Return texts and calls, neighbouring texts joined."""
    scanner = TextToolCalls(offered())
    runs = [run for part in parts for run in scanner.feed(part)] + scanner.close()
    joined: list[str | Call] = []
    for run in runs:
        if isinstance(run, TextCall):
            joined.append((run.name, json.loads(run.arguments)))
        elif joined and isinstance(joined[-1], str):
            joined[-1] += run
        else:
            assert run
            joined.append(run)
    return joined


def check(text: str, expected: list[str | Call]) -> None:
    assert split([text]) == expected
    assert split(list(text)) == expected
    for at in range(1, len(text)):
        assert split([text[:at], text[at:]]) == expected, at


LS: Call = ("Bash", {"command": "ls <a>"})
ALONE = {name for name in CALLS if "bare" in name}


@pytest.mark.parametrize("name", CALLS)
def test_call_alone(name: str) -> None:
    check(CALLS[name], [LS])
    check(f"\n\n{CALLS[name]}\n", [LS])


@pytest.mark.parametrize("name", sorted(CALLS.keys() - ALONE))
def test_call_after_text_and_before_another(name: str) -> None:
    call = CALLS[name]
    check(f"I look.\n\n{call}\n{call}", ["I look.\n\n", LS, LS])


@pytest.mark.parametrize("name", sorted(CALLS.keys() - ALONE))
def test_text_after_a_call_stays(name: str) -> None:
    tail = "This text is longer than what may be dropped after a call, by some words."
    check(f"{CALLS[name]}\n{tail}", [LS, tail])


@pytest.mark.parametrize("name", CALLS)
def test_tool_that_is_not_offered(name: str) -> None:
    text = CALLS[name].replace("Bash", "Shell")
    check(text, [text])


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(
    "form", ["```\n{}\n```\n", "Like this:\n~~~xml\n{}\n~~~", "- so:\n  ```json\n  {}\n", "`{}`"]
)
def test_call_in_code(name: str, form: str) -> None:
    call = CALLS[name]
    if "```" in call and "```" in form:
        call = call.replace("```", "~~~")  # its own fence would end the fence around it
    if form[0] == "`" != form[1]:
        call = call.replace("\n", " ")  # a span of code is looked for in one line
    text = form.format(call)
    check(text, [text])


def test_call_after_a_fence_that_is_closed() -> None:
    text = "```sh\nls\n```\nNow I run it:\n"
    check(text + CALLS["hermes"], [text, LS])


@pytest.mark.parametrize("name", CALLS)
def test_call_that_is_cut(name: str) -> None:
    """Whatever is left of a cut call is text, unless its arguments were complete."""
    call = CALLS[name]
    last = call.rindex("ls <a>")
    for at in range(1, last + 3):
        assert split([call[:at]]) == [call[:at]], at


@pytest.mark.parametrize(
    "text",
    [
        "a < b and c <| d",
        "The tag <tool_call> begins a call.",
        "<tool_call>",
        "<tool_call>{",
        "<tool_call> {curly} text",
        '<tool_call>{"name": "Bash"}</tool_call>',  # the command is required
        '<tool_call>{"name": "Bash", "arguments": "ls"}</tool_call>',
        '<tool_call>{"name": "Bash", "arguments": ["ls"]}</tool_call>',
        "<tool_call>Bash</tool_call>",
        "<function=Bash>",
        "<function=Bash></function>",
        "<function=Bash> is how it begins",
        "[TOOL_CALLS]",
        "[TOOL_CALLS]Bashful{}",
        "[TOOL_CALLS] are a mark of Mistral's models",
        "<|channel|>commentary to=functions.Bash is written by gpt-oss",
        "<|channel|>final<|message|>Done.",
        '{"name": "Bash", "parameters": {"command": "ls"}} is how Llama calls a tool.',
        'So: {"name": "Bash", "parameters": {"command": "ls"}}',
        '{"name": "Ada", "parameters": {"age": 36}}',
        '{"answer": 42}',
        " ",
        "\n\nHello",
    ],
)
def test_look_alikes(text: str) -> None:
    check(text, [text])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # arguments encoded twice
        (
            '<tool_call>{"name": "Bash", "arguments": "{\\"command\\": \\"ls\\"}"}</tool_call>',
            [("Bash", {"command": "ls"})],
        ),
        # channel words behind the name
        (
            '<tool_call>{"name": "Bash<|channel|>commentary", "arguments": {"command": "ls"}}</tool_call>',
            [("Bash", {"command": "ls"})],
        ),
        (
            '<|channel|>commentary to=functions.Bash<|channel|>commentary<|message|>{"command": "ls"}',
            [("Bash", {"command": "ls"})],
        ),
        # a missing first brace
        (
            '<tool_call>"name": "Bash", "arguments": {"command": "ls"}}</tool_call>',
            [("Bash", {"command": "ls"})],
        ),
        ('[TOOL_CALLS]Bash"command": "ls"}', [("Bash", {"command": "ls"})]),
        # a whole object followed by rubbish
        (
            '<tool_call>{"name": "Bash", "arguments": {"command": "ls"}}}} ok</tool_call>\nDone.',
            [("Bash", {"command": "ls"}), "Done."],
        ),
        ('[TOOL_CALLS]Bash{"command": "ls"}}', [("Bash", {"command": "ls"})]),
        # what fits no schema stays
        ('[TOOL_CALLS]Bash"cmd": "ls"}', ['[TOOL_CALLS]Bash"cmd": "ls"}']),
    ],
)
def test_spoilt_calls(text: str, expected: list[str | Call]) -> None:
    check(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            '<tool_call>{"type": "function", "function": {"name": "TaskList", "arguments": {}}}</tool_call>',
            [("TaskList", {})],
        ),
        ('<tool_call>{"name": "TaskList"}</tool_call>', [("TaskList", {})]),
        ("<function=TaskList>\n</function>", [("TaskList", {})]),
        ("<tool_call>TaskList</tool_call>", [("TaskList", {})]),
        ('[TOOL_CALLS]BashOutput{"id": "1"}', [("BashOutput", {"id": "1"})]),
        (
            '[TOOL_CALLS][{"name": "TaskList", "arguments": {}}, {"name": "BashOutput", "arguments": {"id": "}"}}]',
            [("TaskList", {}), ("BashOutput", {"id": "}"})],
        ),
        (
            '{"name": "TaskList", "parameters": {}}; {"name": "BashOutput", "parameters": {"id": "1"}}',
            [("TaskList", {}), ("BashOutput", {"id": "1"})],
        ),
        (
            "<function=Bash><parameter=command>\n\ncat <<E\n</parameter> \nE\n</parameter>"
            "<parameter=timeout>\n5\n</parameter><parameter=run_in_background>True</parameter></function>",
            [
                (
                    "Bash",
                    {"command": "\ncat <<E\n</parameter> \nE", "timeout": 5, "run_in_background": True},
                )
            ],
        ),
        (
            "<tool_call>TodoWrite<arg_key>todos</arg_key><arg_value>[{}]</arg_value></tool_call>",
            [("TodoWrite", {"todos": [{}]})],
        ),
        (
            '<minimax:tool_call><invoke name="TaskList"></invoke><invoke name="TaskList"></invoke></minimax:tool_call>',
            [("TaskList", {}), ("TaskList", {})],
        ),
        (
            '<｜DSML｜tool_calls><｜DSML｜invoke name="Bash"><｜DSML｜parameter name="command" string="true">5'
            '</｜DSML｜parameter><｜DSML｜parameter name="timeout" string="false">7</｜DSML｜parameter>'
            "</｜DSML｜invoke></｜DSML｜tool_calls>",
            [("Bash", {"command": "5", "timeout": 7})],
        ),
        ("<tool_call>{oops <tool_call>" + CALLS["hermes"], ["<tool_call>{oops <tool_call>", LS]),
    ],
)
def test_values(text: str, expected: list[str | Call]) -> None:
    check(text, expected)


def test_held_text_is_bounded() -> None:
    scanner = TextToolCalls(offered())
    given = list(scanner.feed('[TOOL_CALLS]Bash{"command": "'))
    for _ in range(2 * MAX_BODY // 65536):
        given += scanner.feed("x" * 65536)
    assert sum(len(run) for run in given if isinstance(run, str)) >= MAX_BODY
    given += scanner.close()
    assert all(isinstance(run, str) for run in given)


def test_cost_is_linear() -> None:
    """A million characters in small parts: with a cost per held character this would take minutes."""
    text = "x" * 100
    for opening in ('[TOOL_CALLS]Bash{"command": "', "<function=Bash><parameter=command>", "<tool_call>{"):
        scanner = TextToolCalls(offered())
        scanner.feed(opening)
        for _ in range(9000):
            scanner.feed(text)
        scanner.close()


PIECES = [
    *CALLS.values(),
    "<tool_call>",
    "</tool_call>",
    "<function=Bash>",
    "[TOOL_CALLS]",
    "<|channel|>",
    "commentary",
    "to=functions.",
    "Bash",
    "{",
    "}",
    '"',
    "\\",
    '{"command": 1}',
    "```",
    "`",
    "\n",
    " ",
    ";",
    "text",
    "x" * 60,
]


@settings(max_examples=examples(300), deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=8).map("".join), st.data())
def test_result_does_not_depend_on_the_cuts(text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=10)) | {0, len(text)})
    parts = [text[start:end] for start, end in pairwise(cuts)]
    assert split(parts) == split([text]) == split(list(text))


@settings(max_examples=examples(200), deadline=None)
@given(st.text(alphabet="ab<>[]{}`|\"'\n =:", max_size=60))
def test_text_without_a_call_is_unchanged(text: str) -> None:
    assert "".join(run for run in split([text]) if isinstance(run, str)) == text


def test_text_that_passes_is_as_fed_text() -> None:
    """The fast path leaves the same state: in code or not, at a beginning or not."""
    scanner = TextToolCalls(offered())
    assert not scanner.try_pass("a")  # a bare object may begin
    assert scanner.feed("a") == ["a"]
    assert scanner.try_pass("b `")
    assert not scanner.try_pass("<")
    assert scanner.feed(CALLS["hermes"].replace("\n", " ")) == [CALLS["hermes"].replace("\n", " ")]
    assert scanner.try_pass("`\n")
    assert scanner.feed("x <tool") == ["x "]
    assert not scanner.try_pass("a")
    assert scanner.feed("_call>" + CALLS["hermes"].removeprefix("<tool_call>")) == [
        TextCall("Bash", '{"command":"ls <a>"}')
    ]
    assert not scanner.try_pass("a")


def test_whole_response_that_is_not_streamed() -> None:
    """The same for one JSON body: a text, the call, and the stop reason of a call."""
    codec = OpenAIStream(
        ResponseContext("m", tools=offered()), Dialect(), lambda prefix: f"{prefix}1", lambda name: None
    )
    message = {"role": "assistant", "content": "I look.\n" + CALLS["qwen coder"]}
    assert codec.on_body({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]})
    collector = MessageCollector()
    collector.add_all(codec.close())
    response = collector.message()
    assert response["stop_reason"] == "tool_use"
    text, use = response["content"]
    assert text == {"type": "text", "text": "I look.\n"}
    assert (use["type"], use["name"], use["input"]) == ("tool_use", "Bash", {"command": "ls <a>"})


@pytest.mark.parametrize(
    "piece", ["<tool_call>", "<tool_call>{", "<|channel|>", '<tool_call>{"a": 1}', "a `"]
)
def test_many_markers_in_one_part(piece: str) -> None:
    """20 000 look-alikes in one part: with a cost per text behind them this would take a minute."""
    text = "x" + piece * (2_000 if EFFORT == "fast" else 20_000)
    scanner = TextToolCalls(offered())
    assert "".join(map(str, scanner.feed(text) + scanner.close())) == text
