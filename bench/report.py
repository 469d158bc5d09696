"""The table of results, and the targets."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.scenarios import Figures

__all__ = ["TARGETS", "Rounds", "Target", "table", "verdicts"]

#: contender -> its figures of each round
Rounds = Mapping[str, Sequence[Figures]]


@dataclass(frozen=True)
class Target:
    """An upper limit: `factor` times the same figure of another contender, or `factor` itself.

    Attributes:
        is_close: the ratio is near its limit, so paired measurements are preferred (`bench.paired`).
    """

    contender: str
    figure: str
    factor: float
    other: str | None = None
    other_figure: str | None = None
    is_close: bool = False


TARGETS = (
    Target("translated", "request, ms", 1 / 18, "LiteLLM translated", is_close=True),
    Target("translated", "paced, µs a chunk", 1 / 8, "LiteLLM translated", is_close=True),
    Target("translated", "burst of 16, µs a chunk", 1 / 60, "LiteLLM translated"),
    Target("translated", "tool call, ms", 1 / 60, "LiteLLM translated"),
    Target("translated", "500 open, p99, ms", 1 / 50, "LiteLLM translated"),
    Target("translated", "paced, µs a chunk", 1.0, "pass-through", is_close=True),
    Target("responses", "request, ms", 1.3, "translated", is_close=True),
    Target("responses", "paced, µs a chunk", 1.3, "translated", is_close=True),
    Target("responses", "burst of 16, µs a chunk", 1.3, "translated", is_close=True),
    Target("gemini", "request, ms", 1.3, "translated", is_close=True),
    Target("gemini", "paced, µs a chunk", 1.3, "translated", is_close=True),
    Target("gemini", "burst of 16, µs a chunk", 1.3, "translated", is_close=True),
    Target("direct", "request, ms", 1.25, "pass-through", is_close=True),
    Target("direct", "request with thinking, ms", 2.0, "pass-through", is_close=True),
    Target("direct", "request in another order, ms", 2.0, "pass-through", is_close=True),
    Target("direct", "small request, ms", 1.25, "pass-through", is_close=True),
    Target("direct", "request, not streamed, ms", 1.25, "pass-through", is_close=True),
    Target("direct", "burst of 16, µs a chunk", 1.25, "pass-through", is_close=True),
    Target("direct", "paced, µs a chunk", 1.25, "pass-through", is_close=True),
    Target("direct", "burst of 1, µs a chunk", 1.25, "pass-through", is_close=True),
    Target("direct", "burst of 64, µs a chunk", 1.25, "pass-through", is_close=True),
    Target("direct", "reasoning, µs a chunk", 1.25, "pass-through", is_close=True),
    Target("direct", "tool call, ms", 1.25, "pass-through", is_close=True),
    Target("direct", "500 open, µs a chunk", 1.25, "pass-through"),
    Target("direct", "500 open, RSS, MB", 1.25, "pass-through"),
    Target("translated", "added latency p50, ms", 2, "nginx", is_close=True),
    Target("direct", "added latency p50, ms", 2, "nginx", is_close=True),
    Target("translated TLS", "paced, µs a chunk", 1.3, "translated", is_close=True),
    Target("direct TLS", "paced, µs a chunk", 1.3, "direct", is_close=True),
    Target("translated", "1000 open, µs a chunk", 1.3, "translated", "paced, µs a chunk"),
    Target("direct", "1000 open, µs a chunk", 1.3, "direct", "paced, µs a chunk"),
    Target("translated", "500 open, KB a stream", 60),
    Target("translated", "1000 open, KB a stream", 60),
    Target("direct", "500 open, KB a stream", 60),
    Target("translated", "idle RSS, MB", 60),
    Target("translated", "2 MB request, blocked for, ms", 20),
    Target("translated", "100 000 chunks : 100 × 1000", 1.15),
    Target("translated", "400 000 fragments : 10 × 40 000", 1.15),
)

#: Number of ratios from which their quartiles are shown.
_MIN_RATIOS = 4


def table(rounds: Rounds) -> str:
    """Return the medians of the rounds as a Markdown table: one row per figure, one column per contender."""
    names = [name for name, figures in rounds.items() if figures]
    rows: dict[str, None] = {}
    for name in names:
        for each in rounds[name]:
            rows.update(dict.fromkeys(each))
    lines = ["| |" + "".join(f" {name} |" for name in names), "|---|" + "---:|" * len(names)]
    for row in rows:
        cells = []
        for name in names:
            value = _median(rounds, name, row)
            cells.append("–" if value is None else _short(value))
        lines.append(f"| {row} |" + "".join(f" {cell} |" for cell in cells))
    return "\n".join(lines)


def verdicts(rounds: Rounds, pairs: Sequence[Rounds]) -> str:
    """Return a Markdown table of the targets that were measured: median and quartiles of the rounds' ratios, and
    whether the target is met.

    Args:
        pairs: the rounds of each group of contenders that were measured in pairs.
    """
    lines = ["| target | | measured | half of the pairs | |", "|---|---:|---:|---:|---|"]
    for target in TARGETS:
        spread = ""
        if target.other is None:
            measured = _median(rounds, target.contender, target.figure)
            label = f"{target.contender}: {target.figure}"
            limit = f"≤ {target.factor:g}"
        else:
            other_figure = target.other_figure or target.figure
            source = rounds
            if target.is_close:
                both = {target.contender, target.other}
                source = next((group for group in pairs if both <= group.keys()), rounds)
            both_rounds = zip(source.get(target.contender, ()), source.get(target.other, ()), strict=False)
            ratios = [
                ours[target.figure] / theirs[other_figure]
                for ours, theirs in both_rounds
                if target.figure in ours and theirs.get(other_figure, 0) > 0
            ]
            measured = statistics.median(ratios) if ratios else None
            if len(ratios) >= _MIN_RATIOS:
                low, _, high = statistics.quantiles(ratios, n=4)
                spread = f"{_ratio(low, target)} to {_ratio(high, target)}"
            suffix = f" ({other_figure})" if target.other_figure else ""
            label = f"{target.contender} : {target.other}{suffix}, {target.figure.rpartition(', ')[0]}"
            limit = f"≤ 1/{1 / target.factor:g}" if target.factor < 1 else f"≤ {target.factor:g}"
        if measured is not None:
            verdict = "met" if measured <= target.factor else "**missed**"
            lines.append(f"| {label} | {limit} | {_ratio(measured, target)} | {spread} | {verdict} |")
    return "\n".join(lines)


def _ratio(value: float, target: Target) -> str:
    """Format `value` like the limit of its target."""
    if target.factor >= 1:
        return _short(value)
    return f"1/{_short(1 / value)}" if value > 0 else "0"


def _median(rounds: Rounds, name: str, figure: str) -> float | None:
    values = [each[figure] for each in rounds.get(name, ()) if figure in each]
    return statistics.median(values) if values else None


def _short(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
