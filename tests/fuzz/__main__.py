"""``python -m tests.fuzz [SECONDS]``: coverage-guided fuzzing of decoder, codec and grammar with atheris.

The corpus grows in ``.fuzz/corpus``; it starts from the seeds and from all transcripts. An input that breaks a rule is
left in ``.fuzz/`` and ends the run with exit code 77; shrink it, put it into tests/fuzz/findings, where
tests/fuzz/test_stream_target.py plays it from then on, and mend the code. Exit code 0 also where atheris
cannot be installed: there are no builds for every Python.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / ".fuzz"
DEFAULT_S = 60
#: Tokens that mean something to the code under test.
WORDS = Path(__file__).parent / "words.dict"


def main(arguments: list[str]) -> int:
    seconds = int(arguments[0]) if arguments else DEFAULT_S
    try:
        import atheris
    except ImportError:
        print("fuzz skipped: atheris is not installed; it has no build for this Python and system")
        return 0
    corpus = WORK / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["proxyd"]):
        from tests.fuzz.stream_target import SEEDS, check
    transcripts = [b"\0\0" + path.read_bytes() for path in (ROOT / "tests/transcripts").rglob("*.sse")]
    for seed in (*SEEDS, *transcripts):
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    options = [
        f"-max_total_time={seconds}",
        f"-dict={WORDS}",
        f"-artifact_prefix={WORK}/",
        "-max_len=8192",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], check)
    atheris.Fuzz()  # does not return: it ends the process
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
