"""``python -m bench``: run the contenders in alternating rounds and print the table.

Each round starts every contender, one at a time, in its own process; the scripted upstream runs throughout. Figures are
medians of the rounds. A target is judged by the median of the ratios within each round, so that load from elsewhere
during one round does not count. Contenders whose ratio is near its limit are compared in pairs at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import compileall
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from time import monotonic

import proxyd
from bench import report, startup
from bench.certificates import make_certificate
from bench.contenders import BASELINES, FORMATS, OURS, PEERS, TLS, VARIANTS, Contender
from bench.paired import measure_pairs
from bench.processes import Process
from bench.scenarios import SCENARIOS, Figures, WrongResponse, started, until_ready
from tests.support.ports import free_port

_ROOT = Path(__file__).resolve().parents[1]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    parser.add_argument("--smoke", action="store_true", help="a quick look in under a minute")
    parser.add_argument("--peers", action="store_true", help="measure LiteLLM, too")
    parser.add_argument(
        "--rounds",
        type=int,
        help="how often each contender is started (3, with --smoke 1); 0: only in pairs",
    )
    parser.add_argument("--only", help="names of contenders, separated by commas")
    parser.add_argument("--scenario", help=f"scenarios, separated by commas: {', '.join(SCENARIOS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds' figures to FILE")
    return parser.parse_args()


def _selection(args: argparse.Namespace) -> tuple[list[Contender], list[str]]:
    contenders = [*BASELINES, *OURS, *FORMATS, *VARIANTS, *(PEERS if args.peers else ())]
    scenarios = list(SCENARIOS)
    if args.smoke:
        contenders = [each for each in contenders if each.name == "pass-through" or each in (*OURS, *FORMATS)]
        scenarios = ["requests", "bursts", "kinds", "paced", "open-500"]
    if args.only:
        wanted = args.only.split(",")
        contenders = [
            each for each in (*BASELINES, *OURS, *FORMATS, *VARIANTS, *PEERS) if each.name in wanted
        ]
    if args.scenario:
        scenarios = args.scenario.split(",")
    return contenders, scenarios


_VARIANT_NAMES = {contender.name for contender in VARIANTS}
_PEER_NAMES = {contender.name for contender in PEERS}
_FORMAT_NAMES = {contender.name for contender in FORMATS}
#: Contenders for which a scenario takes minutes or has no meaning.
_SKIPPED = {
    "open-1000": _PEER_NAMES | _VARIANT_NAMES | _FORMAT_NAMES,
    "growth": {"raw relay", "nginx", "pass-through", "direct"} | _PEER_NAMES | _VARIANT_NAMES | _FORMAT_NAMES,
    "huge": {"raw relay", "nginx"} | _PEER_NAMES | _VARIANT_NAMES,
    "open-500": _VARIANT_NAMES | _FORMAT_NAMES,
}


async def _measure(
    contender: Contender, scenarios: list[str], folder: Path, upstream_port: int, args: argparse.Namespace
) -> Figures:
    run_of = started(
        contender,
        folder,
        upstream_port,
        window_s=1.5 if args.smoke else 3.0,
        # Calls of peers take so long that few are enough.
        share=0.2 if contender in PEERS else 0.3 if args.smoke else 1.0,
        open_share=0.3 if args.smoke else 1.0,
    )
    async with run_of as run:
        figures: Figures = {"idle RSS, MB": run.process.rss_bytes() / 1e6}
        for name in scenarios:
            if contender.name in _SKIPPED.get(name, ()):
                continue
            try:
                figures.update(await SCENARIOS[name](run))
            except (WrongResponse, ConnectionError, asyncio.TimeoutError) as exc:
                if contender not in PEERS:
                    raise
                print(f"  {contender.name}: {name}: {str(exc) or type(exc).__name__}", file=sys.stderr)
        return figures


async def _bench(
    args: argparse.Namespace,
    folder: Path,
    rounds: dict[str, list[Figures]],
    pairs: list[dict[str, list[Figures]]],
) -> None:
    """Run all rounds, then the paired measurements. Results are added to `rounds` and `pairs` at once, so that an
    interrupted run has something to show.
    """
    contenders, scenarios = _selection(args)
    for each in contenders:
        rounds[each.name] = []
    # As an installation does: a process that compiles modules itself runs a tenth slower for as long as it lives.
    compileall.compile_dir(_ROOT / "proxyd", quiet=1)
    compileall.compile_dir(_ROOT / "bench", quiet=1)
    upstream_port = free_port()
    environment = {"PYTHONPATH": str(_ROOT), "PATH": os.environ.get("PATH", "/usr/bin:/bin")}
    certificate, tls = make_certificate(folder), None
    command: tuple[str, ...] = (sys.executable, "-m", "bench.upstream", str(upstream_port))
    if certificate is not None:
        tls = TLS(free_port(), certificate.path)
        command += ("--tls", str(tls.port), str(certificate.path), str(certificate.key))
    upstream = Process(command, folder, environment, folder / "upstream.log")
    try:
        await until_ready(upstream, upstream_port, 20)
        for number in range((1 if args.smoke else 3) if args.rounds is None else args.rounds):
            for contender in contenders if number % 2 == 0 else reversed(contenders):
                why = contender.missing()
                if why is not None:
                    if not number:
                        print(f"  {contender.name} is skipped: {why}", file=sys.stderr)
                    continue
                started_at = monotonic()
                try:
                    figures = await _measure(contender, scenarios, folder, upstream_port, args)
                except RuntimeError as exc:
                    if contender not in PEERS:
                        raise
                    print(f"  {contender.name} is skipped: {exc}", file=sys.stderr)
                    continue
                rounds[contender.name].append(figures)
                print(
                    f"  round {number + 1}, {contender.name}: {monotonic() - started_at:.0f} s",
                    file=sys.stderr,
                )
        if not (args.smoke or args.only or args.scenario):
            started_at = monotonic()
            await measure_pairs(folder, upstream_port, pairs, tls=tls, with_peers=args.peers)
            print(f"  in pairs: {monotonic() - started_at:.0f} s", file=sys.stderr)
    finally:
        upstream.stop()


def _versions(args: argparse.Namespace) -> str:
    parts = [
        f"claude-proxy {proxyd.__version__}",
        f"Python {platform.python_version()}",
        f"aiohttp {version('aiohttp')}",
        f"ujson {version('ujson')}",
    ]
    nginx = shutil.which("nginx")
    if nginx and not args.smoke:
        output = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=False).stderr
        parts.append(output.strip().rpartition(": ")[2].replace("/", " "))
    parts.append(f"{platform.system()} {platform.release()}, {os.cpu_count()} CPUs")
    return "; ".join(parts)


def main() -> None:
    """Measure and print; the exit status is 1 only if one of our own responses was wrong."""
    args = _arguments()
    if sys.platform != "linux":
        sys.exit("the benchmark reads CPU and memory from /proc, which only Linux has")
    started_at = monotonic()
    rounds: dict[str, list[Figures]] = {}
    pairs: list[dict[str, list[Figures]]] = []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        try:
            asyncio.run(_bench(args, Path(name), rounds, pairs))
        except KeyboardInterrupt:
            print("interrupted; these are the results so far", file=sys.stderr)
    if args.json:
        results = {"rounds": rounds, "in pairs": pairs}
        args.json.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    print(f"{datetime.date.today().isoformat()}; {_versions(args)}\n")
    if any(rounds.values()):
        print(report.table(rounds), end="\n\n")
    for group in pairs:
        print(report.table(group), end="\n\n")
    print(report.verdicts(rounds, pairs))
    if not args.scenario and not args.only:
        startup.main()
    print(f"\n{monotonic() - started_at:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
