"""What the workers of one daemon report, as one: the first of `answers` is that of the worker that was asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

__all__ = [
    "counts_in",
    "merge_about",
    "merge_call",
    "merge_connection",
    "merge_metrics",
    "merge_stats",
    "merge_totals",
]

#: How bad the states of circuits and of members of pools are.
_STATES = {"closed": 0, "works": 0, "trial": 1, "limited": 1, "refused": 2, "open": 2, "failing": 3}
#: Gauges that are not the largest value of all workers.
_GAUGES: dict[str, Callable[[float, float], float]] = {
    "proxyd_streams_active": lambda a, b: a + b,
    "proxyd_config_reload_success": min,
    "proxyd_store_up": min,
}

_COUNTED = ("counter", "histogram", "summary")

Answer = dict[str, Any]


def merge_about(answers: Sequence[Answer]) -> Answer:
    """Merge bodies of ``/readyz?verbose``."""
    found = {name: value for name, value in answers[0].items() if name not in ("worker", "worker_pid")}
    workers = [
        {
            "number": each["worker"],
            "pid": each["worker_pid"],
            "uptime_s": each["uptime_s"],
            "calls": each["calls"],
        }
        for each in answers
    ]
    return {
        **found,
        "uptime_s": max(each["uptime_s"] for each in answers),
        "calls": sum(each["calls"] for each in answers),
        "models": [model for model in found["models"] if all(model in each["models"] for each in answers)],
        "workers": sorted(workers, key=lambda each: each["number"]),
        "circuits": _worst(circuit for each in answers for circuit in each["circuits"]),
        "keys": _pools([each["keys"] for each in answers]),
        "targets": _pools([each["targets"] for each in answers]),
        "virtual_keys": _holders([each["virtual_keys"] for each in answers]),
        "store": next(
            (each["store"] for each in answers if (each["store"] or {}).get("trouble")), found["store"]
        ),
        "hooks": _hooks([each["hooks"] for each in answers]),
        **_first_of("config_error", answers),
    }


def merge_stats(answers: Sequence[Answer]) -> Answer:
    """Merge bodies of ``/v1/stats``: what is of the ledger is the same in all."""
    found = dict(answers[0])
    if "holders" in found:
        found["holders"] = _holders([each["holders"] for each in answers])
    if "since_start" in found:
        found["since_start"] = merge_totals([each["since_start"] for each in answers])
        found["started_at"] = min(each["started_at"] for each in answers)
        found["uptime_s"] = max(each["uptime_s"] for each in answers)
        found["ledger"] = {
            **found["ledger"],
            "calls_lost": sum(each["ledger"]["calls_lost"] for each in answers),
            "trouble": next(
                (each["ledger"]["trouble"] for each in answers if each["ledger"]["trouble"]), None
            ),
        }
    return found


def merge_connection(answers: Sequence[Answer]) -> Answer:
    """Merge bodies of ``/test-connection``."""
    found = dict(answers[0])
    routes = []
    for route in found["routes"]:
        same = [
            other for each in answers for other in each["routes"] if other["model_id"] == route["model_id"]
        ]
        worst = max(same, key=lambda each: (_STATES[each["circuit"]], each["open_for_s"]))
        routes.append(
            {
                **route,
                "circuit": worst["circuit"],
                "open_for_s": worst["open_for_s"],
                "keys": _members([each["keys"] for each in same]),
                "targets": _members([each["targets"] for each in same]),
            }
        )
    config = {
        **found["config"],
        "error": next((e["config"]["error"] for e in answers if e["config"]["error"]), None),
    }
    return {
        **found,
        "routes": routes,
        "config": config,
        "hooks": _hooks([each["hooks"] for each in answers]),
        "virtual_keys": _holders([each["virtual_keys"] for each in answers]),
    }


def merge_call(answers: Sequence[Answer]) -> Answer:
    """Choose the body of ``/v1/calls/ID`` that knows most: the worker that had the call remembers it."""
    return max(answers, key=lambda each: (each["record"] is not None, bool(each["altered"])))


def merge_totals(answers: Iterable[Iterable[Answer]]) -> list[Answer]:
    """Merge sums since the start by route. A median is that of the workers' medians, weighted by their calls."""
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        for totals in answer:
            found.setdefault(totals["route"], []).append(totals)
    merged = []
    for route, parts in found.items():
        sums = {
            name: sum(each[name] for each in parts) for name in parts[0] if name not in ("route", "ttfb_ms")
        }
        timed = [(each["ttfb_ms"], each["calls"]) for each in parts if each["ttfb_ms"] is not None]
        calls = sum(count for _, count in timed)
        ttfb_ms = round(sum(ms * count for ms, count in timed) / calls) if calls else None
        merged.append({"route": route, **sums, "ttfb_ms": ttfb_ms})
    return merged


def counts_in(text: str) -> str:
    """Return what of metrics in the text format is counted: counters and histograms, without gauges."""
    lines: list[str] = []
    about, is_count = "", False
    for line in text.splitlines():
        if line.startswith("# HELP "):
            about = line
        elif line.startswith("# TYPE "):
            is_count = line.rpartition(" ")[2] in _COUNTED
            lines += [about, line] if is_count else []
        elif is_count:
            lines.append(line)
    return "\n".join(lines) + "\n"


def merge_metrics(answers: Sequence[str]) -> str:
    """Merge metrics in the text format: counters and histograms are added, gauges as `_GAUGES` says."""
    heads: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    samples: dict[str, dict[str, float]] = {}
    for answer in answers:
        family = ""
        own: set[str] = set()
        for line in answer.splitlines():
            if line.startswith("#"):
                _, what, family, rest = line.split(" ", 3)
                if family not in own:
                    own.add(family)
                    is_new = family not in heads
                    heads.setdefault(family, [])
                    samples.setdefault(family, {})
                if is_new:
                    heads[family].append(line)
                    if what == "TYPE":
                        kinds[family] = rest
                continue
            name, _, text = line.rpartition(" ")
            value, known = float(text), samples[family]
            known[name] = value if name not in known else _merged(family, kinds[family], known[name], value)
    lines = []
    for family, head in heads.items():
        lines += [*head, *(f"{name} {value!r}" for name, value in samples[family].items())]
    return "\n".join(lines) + "\n"


def _merged(family: str, kind: str, one: float, other: float) -> float:
    if family.endswith("_created"):
        return min(one, other)
    if kind in _COUNTED:
        return one + other
    return _GAUGES.get(family, max)(one, other)


def _worst(circuits: Iterable[Answer]) -> list[Answer]:
    found: dict[str, Answer] = {}
    for each in circuits:
        known = found.setdefault(each["origin"], each)
        if _STATES[each["state"]] > _STATES[known["state"]]:
            found[each["origin"]] = each
    return list(found.values())


def _pools(answers: Sequence[dict[str, list[Answer]]]) -> dict[str, list[Answer]]:
    names = dict.fromkeys(name for each in answers for name in each)
    return {name: _members([each[name] for each in answers if name in each]) for name in names}


def _members(answers: Sequence[list[Answer]]) -> list[Answer]:
    """Merge members of a pool: sums, and the state of the worker where it is worst."""
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        for member in answer:
            found.setdefault(member["name"], []).append(member)
    sums = ("calls", "failures", "input_tokens", "output_tokens")
    merged = []
    for parts in found.values():
        worst = max(parts, key=lambda each: (_STATES[each["state"]], each.get("for_s", 0)))
        merged.append({**worst, **{name: sum(each[name] for each in parts) for name in sums}})
    return merged


def _holders(answers: Sequence[list[Answer]]) -> list[Answer]:
    """Merge virtual keys and teams: calls in flight are added; of a limit the worker that knows most is right."""
    found: dict[tuple[str, bool], list[Answer]] = {}
    for answer in answers:
        for holder in answer:
            found.setdefault((holder["name"], holder["is_team"]), []).append(holder)
    merged = []
    for parts in found.values():
        limits = [
            max(same, key=lambda each: float(each["used"]))
            for same in zip(*(each["limits"] for each in parts), strict=False)
        ]
        merged.append({**parts[0], "in_flight": sum(each["in_flight"] for each in parts), "limits": limits})
    return merged


def _hooks(answers: Sequence[list[Answer]]) -> list[Answer]:
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        for hook in answer:
            found.setdefault(hook["name"], []).append(hook)
    merged = []
    for parts in found.values():
        first = next((each for each in parts if each.get("is_off") or "error" in each), parts[0])
        numbers = [name for name in ("calls", "failures", "slow_calls") if name in first]
        hook = {**first, **{name: sum(each.get(name, 0) for each in parts) for name in numbers}}
        if "last_failure" in first:
            hook["last_failure"] = next(
                (each["last_failure"] for each in parts if each.get("last_failure")), None
            )
        merged.append(hook)
    return merged


def _first_of(name: str, answers: Sequence[Answer]) -> Answer:
    for each in answers:
        if name in each:
            return {name: each[name]}
    return {}
