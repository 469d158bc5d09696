"""``python -m tests.system.fuzz [SECONDS [TARGET]]``: coverage-guided fuzzing with atheris.

The targets: ``stream``, whatever an upstream sends, through decoder, codec and grammar; ``request``, whatever a client
sends, through the translation and the direct splice. Without one, both run, SECONDS each.

The corpus grows in ``.fuzz/TARGET``; it starts from the seeds and from all transcripts. An input that breaks a rule
is left in ``.fuzz/`` and ends the run with exit code 77; shrink it, put it into tests/system/fuzz/findings (those
of requests as ``request-*.bin``), where the tests play it from then on, and fix the code. Exit code 0 also where
atheris cannot be installed: there are no builds for every Python.
"""

from __future__ import annotations

import hashlib
import importlib
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

WORK = ROOT / ".fuzz"
DEFAULT_S = 60
#: Tokens that mean something to the code under test.
WORDS = Path(__file__).parent / "words.dict"


#: Target -> what of the transcripts it starts from.
TARGETS = {"stream": "*.sse", "request": "*.request.json"}


def main(arguments: list[str]) -> int:
    seconds = int(arguments[0]) if arguments else DEFAULT_S
    try:
        import atheris
    except ImportError:
        print("fuzz skipped: atheris is not installed; it has no build for this Python and system")
        return 0
    if len(arguments) < 2:  # a run ends its process, so each target has its own
        command = [sys.executable, "-m", "tests.system.fuzz", str(seconds)]
        return max(abs(subprocess.run([*command, target], cwd=ROOT).returncode) for target in TARGETS)
    target = arguments[1]
    corpus = WORK / target
    corpus.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["proxyd"]):
        module = importlib.import_module(f"tests.system.fuzz.{target}_target")
    transcripts = [
        b"\0\0" + path.read_bytes() for path in (ROOT / "tests/transcripts").rglob(TARGETS[target])
    ]
    for seed in (*module.SEEDS, *transcripts):
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-dict={WORDS}",
        f"-artifact_prefix={WORK}/{target}-",
        "-max_len=8192",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], module.check)
    atheris.Fuzz()  # does not return: it ends the process
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
