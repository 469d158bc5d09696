"""Rules that hand requests of a class to other entries: ``routes:`` of models.yaml and of its entries (docs/routes.md).

The rules of the entry that was asked for come first, then those of the file; the first one that matches decides. A rule
is applied once: those of the entry that it names are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from proxyd.config.faults import hint, shown
from proxyd.config.kinds import Kind, Report, boolean, identifier, names, table, token_count
from proxyd.config.request_classes import AUXILIARY_KINDS, CLASSES

__all__ = ["Facts", "RouteRule", "build_rules", "route_rules_kind"]


@dataclass(frozen=True)
class Facts:
    """What rules ask about a request.

    Attributes:
        classes: its class, and its kind where that is finer.
        agent_type: of a subagent, as its header names it.
        max_tokens: its limit on the output; 0 for none.
        count_tokens: estimates its input; called where a rule asks.
        has_image, thinks, searches: of a request that was parsed.
    """

    classes: frozenset[str]
    agent_type: str = ""
    max_tokens: int = 0
    count_tokens: Callable[[], int] = int
    has_image: Callable[[], bool] = bool
    thinks: bool = False
    searches: bool = False


@dataclass(frozen=True, slots=True)
class RouteRule:
    """One rule; None leaves a condition out.

    Attributes:
        name: its place in the file, such as ``routes[0]`` or ``models[2].routes[0]``.
        use: the model_id of the entry that serves what matches.
    """

    name: str
    use: str
    classes: tuple[str, ...] | None = None
    agent_type: tuple[str, ...] | None = None
    over_tokens: int | None = None
    has_image: bool | None = None
    thinking: bool | None = None
    web_search: bool | None = None

    @property
    def needs_body(self) -> bool:
        """Whether a condition is about the body of a request, which has to be parsed for it."""
        return not self.over_tokens is self.has_image is self.thinking is self.web_search is None

    def matches(self, facts: Facts) -> bool:
        """Whether all conditions hold; those that cost least are looked at first."""
        if self.classes is not None and facts.classes.isdisjoint(self.classes):
            return False
        if self.agent_type is not None and not any(
            fnmatchcase(facts.agent_type, pattern) for pattern in self.agent_type
        ):
            return False
        if self.thinking is not None and self.thinking != facts.thinks:
            return False
        if self.web_search is not None and self.web_search != facts.searches:
            return False
        if self.has_image is not None and self.has_image != facts.has_image():
            return False
        return self.over_tokens is None or facts.count_tokens() > self.over_tokens

    def may_hold_with(self, other: RouteRule) -> bool:
        """Whether one request can meet the conditions of both."""
        if (
            self.classes is not None
            and other.classes is not None
            and _with_kinds(self.classes).isdisjoint(_with_kinds(other.classes))
        ):
            return False
        return not any(
            {getattr(self, name), getattr(other, name)} == {True, False}
            for name in ("has_image", "thinking", "web_search")
        )

    def describe(self) -> str:
        """Return the conditions in one line, such as ``class subagent, over 100000 tokens``."""
        parts = [
            self.classes is not None and f"class {' or '.join(self.classes)}",
            self.agent_type is not None and f"agent {' or '.join(self.agent_type)}",
            self.over_tokens is not None and f"over {self.over_tokens} tokens",
            *(
                value is not None and f"{'with' if value else 'without'} {what}"
                for value, what in (
                    (self.has_image, "images"),
                    (self.thinking, "thinking"),
                    (self.web_search, "web search"),
                )
            ),
        ]
        return ", ".join(part for part in parts if part) or "everything"


def _with_kinds(classes: tuple[str, ...]) -> set[str]:
    return {*classes, *(AUXILIARY_KINDS if "auxiliary" in classes else ())}


def _classes() -> Kind:
    inner = names("a class of requests")

    def read(value: Any, report: Report) -> tuple[str, ...] | None:
        found: tuple[str, ...] | None = inner.read(value, report)
        is_list = isinstance(value, list)
        for index, name in enumerate(value if is_list else [value]):
            if isinstance(name, str) and name not in CLASSES:
                report(
                    (index,) if is_list else (), f"{shown(name)} is no class; {hint(name, CLASSES)}", False
                )
        return found

    one = {"enum": list(CLASSES)}
    return Kind(inner.expected, read, {"anyOf": [{"type": "array", "items": one}, one]}, inner.from_text)


#: The conditions of a rule.
WHEN: Mapping[str, tuple[Kind, str]] = {
    "class": (_classes(), f"Classes of requests: {', '.join(CLASSES)}."),
    "agent_type": (names("a type of agent"), "Types of subagents, such as Explore; * stands for any text."),
    "over_tokens": (token_count(), "The estimated input is larger than this."),
    "has_image": (boolean(), "Whether an image is in the conversation."),
    "thinking": (boolean(), "Whether the request asks the model to think."),
    "web_search": (boolean(), "Whether it offers Anthropic's web search."),
}
RULE: Mapping[str, tuple[Kind, str]] = {
    "when": (
        table("a mapping of conditions", WHEN),
        "The conditions, which all must hold; none for everything.",
    ),
    "use": (identifier("the model_id of an entry"), "The model_id of the entry that serves these requests."),
}


def route_rules_kind() -> Kind:
    """Kind of a list of rules."""
    one = table("a rule such as {when: {class: subagent}, use: small-model}", RULE)
    expected = "a list of rules such as {when: {class: subagent}, use: small-model}"

    def read(value: Any, report: Report) -> tuple[dict[str, Any], ...] | None:
        if not isinstance(value, list):
            report((), f"expected {expected}; got {shown(value)}", False)
            return None
        found = []
        for index, item in enumerate(value):
            rule = one.read(item, _below(report, index))
            if rule is not None and "use" not in rule and isinstance(item, dict) and "use" not in item:
                report((index,), "use is missing; name the entry that serves what matches", False)
            elif rule is not None:
                found.append(rule)
        return tuple(found)

    schema = {"type": "array", "items": {**one.schema, "required": ["use"]}}
    return Kind(expected, read, schema)


def _below(report: Report, index: int) -> Report:
    return lambda path, sentence, on_key: report((index, *path), sentence, on_key)


def build_rules(values: tuple[dict[str, Any], ...], place: str) -> tuple[RouteRule, ...]:
    """Return valid values as rules.

    Args:
        place: of the list in the file, such as ``models[2].routes``.
    """
    rules = []
    for index, value in enumerate(values):
        when = dict(value.get("when", {}))
        classes = when.pop("class", None)
        rules.append(RouteRule(name=f"{place}[{index}]", use=value["use"], classes=classes, **when))
    return tuple(rules)
