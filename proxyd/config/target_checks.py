"""What the ``targets`` of entries mean together: they exist, are named once, and have none of their own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from proxyd.config.entries import Findings
from proxyd.config.faults import hint, shown
from proxyd.config.routes import ModelRoute
from proxyd.config.yaml import Node
from proxyd.urls import is_loopback_url, origin_of

__all__ = ["check_targets", "warn_of_targets_without_keys"]


def check_targets(entries: Iterable[tuple[str, Node]], ids: Collection[str], findings: Findings) -> None:
    """Report targets that cannot serve.

    Args:
        entries: the mappings under ``models``, as written, each with its subject.
        ids: the ids of all entries.
    """
    entries = list(entries)
    with_targets = {_own_id(node) for _, node in entries if "targets" in node.value}
    for subject, node in entries:
        seen: set[str] = set()
        own = _own_id(node)
        for place, name in _targets_of(node, subject):
            if name.value in seen:
                findings.fault(name, place, f"{shown(name.value)} stands here twice; keep one, with a weight")
            elif name.value not in ids:
                text = f"no entry has the model_id {shown(name.value)}; {hint(name.value, ids)}"
                findings.fault(name, place, text)
            elif name.value != own and name.value in with_targets:
                text = f"{shown(name.value)} has targets of its own; name those here instead"
                findings.fault(name, place, text)
            seen.add(name.value)


def warn_of_targets_without_keys(
    routes: Mapping[int, ModelRoute], nodes: Sequence[Node], findings: Findings
) -> None:
    """Warn of targets that will be passed over because the client's key is not for them.

    Args:
        routes: valid entries by their index in the file; `nodes` are theirs, in the same order.
    """
    by_id = {route.model_id: route for route in routes.values()}
    for (index, route), node in zip(routes.items(), nodes, strict=True):
        for place, name in _targets_of(node, f"models[{index}]"):
            other = by_id.get(name.value)
            if other is None or other.key_origin is not None or other.is_demo:
                continue
            if origin_of(other.api_base) != origin_of(route.api_base) and not is_loopback_url(other.api_base):
                text = (
                    f"{shown(name.value)} is at another address and will be passed over, since the client's key "
                    "does not go there; give it an api_key"
                )
                findings.warn(name, place, text)


def _own_id(node: Node) -> str | None:
    own = node.value.get("model_id")
    return own.value if own is not None and isinstance(own.value, str) else None


def _targets_of(node: Node, subject: str) -> list[tuple[str, Node]]:
    """Return the named entries, each with its subject."""
    targets = node.value.get("targets")
    found = []
    for index, item in enumerate(
        targets.value if targets is not None and isinstance(targets.value, list) else ()
    ):
        place = f"{subject}.targets[{index}]"
        if isinstance(item.value, dict):
            item, place = item.value.get("use"), f"{place}.use"
        if item is not None and isinstance(item.value, str):
            found.append((place, item))
    return found
