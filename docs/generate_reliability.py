"""Writes docs/reliability.md from the markers of the tests: ``python docs/generate_reliability.py``.

A test that shows a statement carries ``@pytest.mark.statement("A2")``. A statement without a test, and a marker without
a statement, are errors: the table cannot promise what nothing shows.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
PROSE = ROOT / "docs" / "reliability_prose.md"

#: What is promised, by the names that the tests' markers use.
STATEMENTS: dict[str, str] = {
    "A1": "Nothing is bound before the configuration is valid; a fault of it is exit 78, a taken port 75; "
    "the service manager gets READY after that.",
    "A2": "A stop lets open streams finish, byte for byte as without a stop, refuses new work with 529, "
    "turns readiness 503, closes idle connections, says every 5 s how far it is, and ends what is "
    "left with one error event.",
    "A3": "A stop takes no longer than `drain_timeout_s` and 5 s; a second signal ends the waiting.",
    "A4": "A reload reads models.yaml, hooks and keys anew for new calls only: a hundred of them during "
    "fifty streams lose no byte; an invalid file changes nothing and shows in the metrics; what needs "
    "a restart is named.",
    "A5": "SIGUSR1 opens the log file anew, SIGUSR2 writes the state to the log.",
    "A6": "A mistake of ours ends one call, with a legal end and a traceback in the log, and no other.",
    "A7": "A client that leaves, in whatever phase and way, cancels its upstream within a second.",
    "A8": "No step of the event loop takes 50 ms of processor time, and none waits for a file, a name or a "
    "process, with requests of 140 KB, bursts of events, reloads of 200 entries, scrapes, the page "
    "and the ledger; nor does a collection of garbage, also with 480 calls open. The work "
    "on requests of megabytes or of many values is done in a thread. A late loop is measured and "
    "logged, and only one that runs feeds the watchdog.",
    "A9": "Processes share no state, and there is no PID file.",
    "B keepalive_s": "A connection that idles, before a request or between two, or dribbles a head, is closed.",
    "B body_idle_s": "A request body that stops is 408.",
    "B body_total_s": "A request body that dribbles is 408.",
    "B connect_s": "A connection that is not there in time is 502: one timeout covers look-up, proxy, CONNECT and TLS.",
    "B first_byte_s": "An upstream that does not begin is 504.",
    "B idle_s": "An upstream that falls silent ends the stream with a timeout error.",
    "B ping_s": "Silence is filled with pings, between frames and never inside one.",
    "B commit_s": "A long silence commits status 200; what fails after it is an error event.",
    "B write_stall_s": "A client that takes no byte is dropped; one that reads slowly is served.",
    "B total_s": "A total, where one is set, ends the stream with a timeout error.",
    "C1": "Request bodies are bounded after unpacking, whatever their form; bombs are recognised by their ratio.",
    "C2": "Lines and number of headers are bounded.",
    "C3": "JSON that nests too deeply is refused wherever it is read; what goes on unread (large direct requests) is "
    "judged by its upstream.",
    "C4": "Events, their lines and whole bodies of an upstream are bounded, at each point of its answer.",
    "C5": "Upstreams are asked for uncompressed responses; gzip that one sends all the same is decompressed by chunks "
    "within the same bounds, at most to a hundred times its size (translated, and with hooks), or passed on "
    "as it is (direct, where the entry has no key).",
    "C6": "A client that does not read costs less than 512 KiB, also where silence has begun its stream, and "
    "with hooks over the stream.",
    "C7": "Calls in flight are bounded, in all and for each entry; one more is 529 at once. Many long "
    "streams leave nothing behind: a short form here, 1000 of 20 MB in each mode by `make memory` "
    "(figures above).",
    "C8": "The limit on descriptors is raised at the start; without descriptors accepting rests, and one line says so.",
    "D table": "Each failure of an upstream, at each point of its answer, in each framing and both modes, has "
    "its answer, and leaves nothing to the next call: no task, no descriptor, no object, no byte; no response reaches "
    "another client, whatever upstreams send and when.",
    "D1": "A stream that has begun ends in `message_stop` or one `error` event (or, with `on_midstream_error: abort`, "
    "as a cut connection).",
    "D2": "Retries happen before the first byte only, for what may pass, with the SDK's delays; in direct mode only "
    "where the connection failed.",
    "D3": "Retries that wait or run are a fifth of the active calls at most, three at least.",
    "D4": "An upstream that fails five times in a row is left alone for a while, so that a fallback serves at once. "
    "Descriptors that run out here count for nothing.",
    "E1": "Beyond loopback a token is needed, of 16 characters or more; it opens every path that shows anything, also "
    "behind a proxy on this machine, and never goes to an upstream.",
    "E2": "The host a request names must be ours.",
    "E3": "Pages of other sites, and forms, are refused, and nothing that a page can send without asking first spends "
    "anything.",
    "E4": "An upstream gets the headers it needs, one key, and no cookie; in direct mode the one that the "
    "client has chosen also gets the client's own headers, as far as `forward_headers` says, and no "
    "other does. The path comes from the entry, and no second model goes up.",
    "E5": "Redirects are not followed, whichever key came in whichever form.",
    "E6": "Addresses inside a request are never fetched.",
    "E7": "Keys and prompts are in no log line, error, metric, feed, file, process list, command's output "
    "or core; tracebacks quote no data, and an upstream's words are remembered without what they quote of "
    "the request; open key files are warned about, and refused with `--strict`; our own files and folders are their "
    "owner's alone, whatever the umask; control characters reach no terminal. No client gets a configured key "
    "that an upstream repeats, in whatever spelling; what another client sends as its key is cut out of nothing.",
    "E8": "Requests that two parsers could read differently, or that lie about their length, are refused; "
    "one framing goes up; any body, header and query has an answer of the API, never a 500.",
    "E9": "Connections, and idle ones of one address, are bounded; no value splits a response, none has a body that "
    "its request or its head does not allow, and an upstream's head gives no orders to a browser.",
    "E10": "Certificates are verified; a proxy of the environment is used only where that is asked for.",
    "E11": "Hook files that others may write, or exchange, are not run, by way of a link neither.",
}


def shown_by(root: Path = ROOT) -> dict[str, list[str]]:
    """Statement -> tests that carry its marker, as ``tests/file.py::test``, read from the syntax trees."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted((root / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for name in _markers(node):
                    found[name].append(f"{path.relative_to(root).as_posix()}::{node.name}")
    return found


def _markers(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    return [
        str(decorator.args[0].value)
        for decorator in node.decorator_list
        if isinstance(decorator, ast.Call)
        and ast.unparse(decorator.func) == "pytest.mark.statement"
        and isinstance(decorator.args[0], ast.Constant)
    ]


def faults(found: dict[str, list[str]]) -> list[str]:
    """What keeps the page from being true."""
    return [
        *(f"no test shows {name}" for name in STATEMENTS if not found.get(name)),
        *(
            f"{tests[0]} is marked with {name}, which is no statement"
            for name, tests in found.items()
            if name not in STATEMENTS
        ),
    ]


def page() -> str:
    """The whole text: what a person wrote, then the table."""
    found = shown_by()
    lines = [PROSE.read_text("utf-8").rstrip(), "", "## Statements and the tests that show them", ""]
    lines += ["| | Statement | Shown by |", "|---|---|---|"]
    for name, text in STATEMENTS.items():
        tests = "<br>".join(f"`{test.removeprefix('tests/')}`" for test in found.get(name, ()))
        lines.append(f"| {name} | {text} | {tests} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if problems := faults(shown_by()):
        raise SystemExit("\n".join(problems))
    PAGE.write_text(page(), "utf-8")
