"""``make mutations``: breaks the translation in one place at a time; each break must fail a test.

A test suite is worth what it notices. Each entry of `MUTATIONS` names a file, a text that occurs in it once, and what
stands there instead. The breaks are made in a copy of the tree, so the working tree is never touched; exit code 1 when
one of them goes unnoticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.support.paths import ROOT

__all__ = ["MUTATIONS", "Mutation", "fault_of"]


#: The tests that need no luck and little time.
TESTS = (
    "tests/unit/codecs/openai/test_stream.py::test_transcript",
    "tests/unit/codecs/openai/test_reasoning_replay.py",
    "tests/unit/codecs/openai/test_think_tags.py",
    "tests/unit/codecs/openai/test_tool_calls.py",
    "tests/unit/codecs/anthropic/test_usage.py",
    "tests/unit/codecs/wire/test_sse.py",
    "tests/unit/codecs/responses/test_stream.py::test_transcript",
    "tests/unit/codecs/responses/test_input_items.py",
    "tests/unit/codecs/responses/test_delta_template.py",
    "tests/unit/codecs/translation/test_stop_sequences.py",
    "tests/unit/codecs/gemini/test_stream.py::test_transcript",
    "tests/unit/codecs/gemini/test_contents.py",
    "tests/unit/codecs/gemini/test_chunk_template.py",
    "tests/unit/codecs/gemini/test_request.py::test_transcript",
    "tests/unit/codecs/gemini/test_thinking.py",
    "tests/unit/codecs/gemini/test_usage.py",
    "tests/integration/proxy/test_vertex.py::test_signatures_of_ai_studio_never_reach_vertex",
)
TIMEOUT_S = 300


class Mutation(NamedTuple):
    """One break: `before` becomes `after` in ``proxyd/<file>``."""

    what: str
    file: str
    before: str
    after: str


MESSAGE = "codecs/translation/message_writer.py"

STREAM, BLOCKS, STOP, CALLS = (
    "codecs/openai/stream.py",
    "codecs/openai/block_writer.py",
    "codecs/openai/finish_reason.py",
    "codecs/openai/tool_calls.py",
)

RESPONSES, ITEMS, INPUT = (
    "codecs/responses/stream.py",
    "codecs/responses/output_items.py",
    "codecs/responses/input_items.py",
)

GEMINI, PARTS, CONTENTS = (
    "codecs/gemini/stream.py",
    "codecs/gemini/part_writer.py",
    "codecs/gemini/contents.py",
)

MUTATIONS = (
    Mutation(
        "a cut stream ends as if it were whole",
        STREAM,
        "        if not self._finish.is_known:\n            self._check_end()",
        "        if False:\n            self._check_end()",
    ),
    Mutation(
        "text overtakes what waits behind a call", BLOCKS, "if self._waiting or (self.slot", "if (self.slot"
    ),
    Mutation(
        "calls are opened before the open one is whole",
        BLOCKS,
        "while self._waiting and (self.slot is None or self.slot.is_complete):",
        "while self._waiting:",
    ),
    Mutation("a call without arguments stays empty", BLOCKS, "if not self.slot.has_arguments:", "if False:"),
    Mutation(
        "tool ids are not unique",
        MESSAGE,
        "if not client_id or client_id in self._used_ids or client_id in self._context.used_ids:",
        "if not client_id:",
    ),
    Mutation(
        "a call that finishes with stop is no tool use",
        STOP,
        "            elif has_calls:",
        '            elif self._reason == "tool_calls":',
    ),
    Mutation(
        "a refusal counts as an answer", STOP, '"refusal" if self.has_refusal else', '"refusal" if False else'
    ),
    Mutation("an error within the stream is passed over", STREAM, 'if chunk.get("error"):', "if False:"),
    Mutation(
        "reasoning loses what must come back with it",
        MESSAGE,
        "SignatureDelta(self.index, signature)",
        'SignatureDelta(self.index, "")',
    ),
    Mutation("a length cut after a stop is forgotten", STOP, "or self._reason in _PLAIN_STOPS or", "or"),
    Mutation(
        "signatures that follow their call are lost",
        BLOCKS,
        "if self._waiting and not self._holds_calls:",
        "if self._waiting:",
    ),
    Mutation("other choices are mixed in", STREAM, "if _choice_index(choice) <= self._choice", "if True"),
    Mutation(
        "the whole answer is said twice",
        STREAM,
        "_late_part(message, self._writer) if self._has_deltas else message",
        "message",
    ),
    Mutation(
        "arguments said twice are two calls",
        CALLS,
        "not _has_other_name(slot, fragment)\n        and not slot.is_copied_by(fragment.arguments)",
        "not _has_other_name(slot, fragment)",
    ),
    Mutation(
        "calls that are all numbered 0 become one",
        CALLS,
        "(bool(fragment.name) or slot.is_complete)",
        "False",
    ),
    Mutation(
        "a brace within a string ends the arguments",
        CALLS,
        "                    self._in_string = True",
        "                    pass",
    ),
    Mutation(
        "a tag that is cut is text",
        "codecs/openai/think_tags.py",
        "keep = max(_partial_tag_length(tag, text) for tag in tags)",
        "keep = 0",
    ),
    Mutation(
        "cached tokens are counted twice",
        "codecs/anthropic/usage.py",
        "input_tokens=prompt - read - written",
        "input_tokens=prompt",
    ),
    Mutation("a CRLF cut in two ends the event", "codecs/wire/sse.py", "if data[0] == 0x0A:", "if False:"),
    Mutation(
        "a BOM in front of JSON",
        "codecs/response_decoder.py",
        "if self._body.startswith(BOM):",
        "if False:",
    ),
    Mutation(
        "reasoning_content does not return",
        "codecs/openai/reasoning_replay.py",
        '_RETURNABLE = ("reasoning_content", "reasoning",',
        '_RETURNABLE = ("reasoning",',
    ),
    Mutation(
        "reasoning does not return",
        "codecs/openai/reasoning_replay.py",
        '_RETURNABLE = ("reasoning_content", "reasoning",',
        '_RETURNABLE = ("reasoning_content",',
    ),
    Mutation(
        "an unknown field returns",
        "codecs/openai/reasoning_replay.py",
        "if field in _RETURNABLE:",
        "if field:",
    ),
    Mutation(
        "a cut Responses stream ends as if it were whole",
        RESPONSES,
        "if self._is_done and self._items.has_content:",
        "if self._items.has_content:",
    ),
    Mutation(
        "a failed response counts as complete",
        RESPONSES,
        'if response.get("error") or status in ("failed", "cancelled"):',
        "if False:",
    ),
    Mutation(
        "a message is begun before there is content",
        RESPONSES,
        "        self._items.add(item)\n",
        "        self._items.add(item)\n        self._writer.start()\n",
    ),
    Mutation(
        "a cut response is an end_turn",
        RESPONSES,
        'self._finish(_INCOMPLETE.get(str(reason), "max_tokens"))',
        'self._finish("end_turn")',
    ),
    Mutation("an error event is ignored", RESPONSES, "raise self._error_in(event)", "return"),
    Mutation(
        "what the end repeats is said twice",
        ITEMS,
        "self.add_text(item, part, missing)",
        "self.add_text(item, part, whole)",
    ),
    Mutation(
        "encrypted reasoning is lost",
        ITEMS,
        'signed = {"encrypted_content": item.encrypted,',
        'signed = {"encrypted_content": None,',
    ),
    Mutation(
        "the phase of a message is lost",
        ITEMS,
        '"phase": phase if self._phases else None',
        '"phase": None',
    ),
    Mutation("parts of a summary run together", ITEMS, "item.last_part not in (None, part)", "False"),
    Mutation(
        "thoughts are said as text and as a summary",
        ITEMS,
        "            elif item.source != part[0]:\n                return",
        "            elif False:\n                return",
    ),
    Mutation(
        "a call is opened within the arguments of another",
        ITEMS,
        "if current is not None and current.is_cut and not current.is_done:",
        "if False:",
    ),
    Mutation("a tool is called without its arguments", ITEMS, "if is_cut and not item.is_done", "if False"),
    Mutation("a block of white space alone", ITEMS, "and text.isspace():", "and False:"),
    Mutation(
        "an event out of its turn is taken for the next delta",
        "codecs/responses/delta_template.py",
        "self._next_number += 1",
        "self._next_number += 0",
    ),
    Mutation(
        "a repeated delta goes to a block that is closed",
        "codecs/stream_codec.py",
        "if writer.index != self._around_index:",
        "if self._around_index < 0:",
    ),
    Mutation("items are sent with ids", INPUT, "if self._dialect.reasoning_item_ids:", "if True:"),
    Mutation(
        "reasoning of another model is sent",
        INPUT,
        "if signature is None or signature.model != self._model:",
        "if signature is None:",
    ),
    Mutation("refused reasoning is sent again", INPUT, "elif self._is_refused(encrypted):", "elif False:"),
    Mutation(
        "reasoning is sent without what it led to",
        INPUT,
        'while len(self._items) > begin and self._items[-1]["type"] == "reasoning":',
        "while False:",
    ),
    Mutation("images leave their result", INPUT, "or self._dialect.images_in_tool_results", ""),
    Mutation(
        "a fifth breakpoint is sent", INPUT, "for part in marked[:-_MAX_BREAKPOINTS]:", "for part in ():"
    ),
    Mutation(
        "a stop sequence that is cut is text",
        "codecs/translation/stop_sequences.py",
        "kept = self._beginning_at_end(text)",
        "kept = 0",
    ),
    Mutation(
        "a cut Gemini stream ends as if it were whole",
        GEMINI,
        "if not self._is_done or self._writer.index < 0:",
        "if self._writer.index < 0:",
    ),
    Mutation(
        "a malformed call is a quiet end",
        "codecs/gemini/finish.py",
        '"MALFORMED_FUNCTION_CALL": FAILED,',
        '"MALFORMED_FUNCTION_CALL": "end_turn",',
    ),
    Mutation(
        "a malformed call is shown before it can be repeated",
        GEMINI,
        "if reason == FAILED and not self.has_started:",
        "if False:",
    ),
    Mutation("an empty response is repeated for ever", GEMINI, "if self._context.retries_empty and", "if"),
    Mutation(
        "a message ends at the first STOP",
        GEMINI,
        'if reason is not None and self._reason in (None, "end_turn"):',
        "if reason is not None and self._reason is None:",
    ),
    Mutation("a blocked prompt is a cut stream", GEMINI, "self._on_feedback(feedback)", "pass"),
    Mutation(
        "the signature of a call is lost", PARTS, "self._close({client_id: signature})", "self._close()"
    ),
    Mutation(
        "the signature of a text is lost",
        PARTS,
        'parts["text"], self._text_signature = self._text_signature, None',
        "self._text_signature = None",
    ),
    Mutation(
        "thoughts hide the result",
        PARTS,
        'if self._writer.block == "text":\n            self._late',
        "if False:\n            self._late",
    ),
    Mutation("a call that is repeated runs twice", PARTS, "in self._seen:", "in ():"),
    Mutation(
        "the beginning of a stop sequence before a call is lost",
        PARTS,
        "self._write_text(self._stop.end())",
        "self._stop.end()",
    ),
    Mutation("results come in any order", CONTENTS, "results.sort(key=lambda result: result[0])", "pass"),
    Mutation("ids of others are sent", CONTENTS, "and turn.is_own and", "and"),
    Mutation(
        "a call of another model has no placeholder",
        CONTENTS,
        "calls[0][SIGNATURE] = placeholder",
        "pass",
    ),
    Mutation(
        "signatures of another model are sent",
        CONTENTS,
        "if signature is None or signature.model != self._model or",
        "if signature is None or",
    ),
    Mutation(
        "signatures of AI Studio reach Vertex AI",
        "providers/translated_request.py",
        "signed_as=profile.signer + route.model_name,",
        "signed_as=route.model_name,",
    ),
    Mutation("refused signatures are sent again", CONTENTS, "if not self._is_refused(data):", "if True:"),
    Mutation(
        "images leave their Gemini result",
        CONTENTS,
        "held if self._dialect.images_in_tool_results else lifted",
        "lifted",
    ),
    Mutation(
        "Gemini thinks in calls that ask for no thinking",
        "codecs/gemini/thinking.py",
        'if wanted.is_on is None and payload.get("thinking") is None and dialect.thinks_by_default:',
        "if False:",
    ),
    Mutation(
        "the usage of a chunk that was not parsed is lost", GEMINI, "if self._last_repeated:", "if False:"
    ),
    Mutation(
        "cached tokens of Gemini are counted twice",
        "codecs/gemini/usage.py",
        "input_tokens=prompt - cached,",
        "input_tokens=prompt,",
    ),
)


def fault_of(mutation: Mutation) -> str | None:
    """Why the mutation cannot be made: its text is gone from the file, or is there more than once."""
    found = (ROOT / "proxyd" / mutation.file).read_text("utf-8").count(mutation.before)
    return None if found == 1 else f"{mutation.what}: its text is {found} times in {mutation.file}"


def main(words: list[str]) -> int:
    """Try them all, or those whose description holds one of `words`, and say how each went."""
    chosen = [each for each in MUTATIONS if not words or any(word in each.what for word in words)]
    if not chosen:
        print(f"no mutation speaks of {' or '.join(words)}", file=sys.stderr)
        return 1
    if faults := [fault for mutation in MUTATIONS if (fault := fault_of(mutation))]:
        print(*faults, sep="\n", file=sys.stderr)
        return 1
    unnoticed = 0
    with tempfile.TemporaryDirectory(prefix="proxyd-mutations-") as folder:
        tree = Path(folder)
        ignore = shutil.ignore_patterns("__pycache__")
        for name in ("proxyd", "tests"):
            shutil.copytree(ROOT / name, tree / name, ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", tree)
        if failure := _failure_in(tree):
            print(f"the tests fail before anything is broken: {failure}", file=sys.stderr)
            return 1
        for mutation in chosen:
            path = tree / "proxyd" / mutation.file
            whole = path.read_text("utf-8")
            path.write_text(whole.replace(mutation.before, mutation.after), "utf-8")
            started = time.monotonic()
            failure = _failure_in(tree)
            path.write_text(whole, "utf-8")
            unnoticed += failure is None
            seconds = time.monotonic() - started
            print(
                f"{'UNNOTICED' if failure is None else 'noticed  '} {seconds:5.1f} s  {mutation.what}"
                f"{f': {failure}' if failure else ''}",
                flush=True,
            )
    print(f"{len(chosen) - unnoticed} noticed, {unnoticed} unnoticed")
    return 1 if unnoticed else 0


def _failure_in(tree: Path) -> str | None:
    """The first test that fails there; None if all pass."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "--tb=no", *TESTS],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode == 0:
        return None
    failed = [line.split(" ")[1] for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return failed[0] if failed else done.stdout[-300:] + done.stderr[-300:]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
