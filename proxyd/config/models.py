"""Reader of models.yaml (docs/spec/design.md#models-yaml).

`load` reads the file into a frozen `Config`. The daemon replaces it as a whole at a reload, so that a request uses one
table from start to end. ``entries.py`` reads a single entry; this module reads the file around the entries and checks
what they mean together.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from proxyd.config.database_url import has_password
from proxyd.config.entries import Checks, EntryReader, Findings
from proxyd.config.faults import Faults, hint, short, shown
from proxyd.config.fingerprint import config_hash
from proxyd.config.keys import DEMO_BASE, TOP_KEYS
from proxyd.config.paths import is_default_models_path
from proxyd.config.route_rules import RouteRule, build_rules, route_rules_kind
from proxyd.config.routes import ModelRoute, Pricing, RouteTable, Timeouts
from proxyd.config.secrets import is_open_to_others
from proxyd.config.target_checks import check_targets, warn_of_targets_without_keys
from proxyd.config.trust import Untrusted, read_trusted
from proxyd.config.yaml import MAX_BYTES, Node, read_tree
from proxyd.urls import is_loopback_url, origin_of

__all__ = [
    "Checks",
    "Config",
    "ModelRoute",
    "Pricing",
    "RouteTable",
    "Timeouts",
    "fault_of_describer",
    "fault_of_model",
    "load",
    "load_text",
    "read_text",
]

_DEMO = f"- {{model_id: demo, api_base: '{DEMO_BASE}'}}\n"
_NO_FILE = "there is none yet, so only the model 'demo' is offered; 'claude-proxy add' adds yours"


@dataclass(frozen=True)
class Config:
    """Content of a models.yaml.

    Attributes:
        settings: the plain values under ``settings:``, for `proxyd.config.settings_loader`.
        settings_at: the position of each, ``FILE:LINE:COLUMN``.
        warnings: one line for each thing that is allowed but unwise, with its position.
        hash: of the file without its keys, see `proxyd.config.fingerprint`.
    """

    table: RouteTable
    settings: dict[str, Any]
    settings_at: dict[str, str]
    path: Path
    warnings: tuple[str, ...] = ()
    hash: str = ""


def load(
    path: Path, environ: Mapping[str, str], *, strict: bool = False, checks: Checks | None = None
) -> Config:
    """Read a models.yaml. Where there is none at its usual place, the model ``demo`` alone is in force.

    Args:
        path: the file; relative key files are looked up beside it.
        environ: where ``${NAME}`` is looked up.
        strict: files with keys that others can read are faults instead of warnings.

    Raises:
        ConfigError: one line per fault, all of them; `UnsafePermissions` if only ``strict`` made them faults.
    """
    if is_default_models_path(path, environ) and not os.path.lexists(path):
        config = load_text(_DEMO, path, environ, strict=strict, checks=checks)
        return replace(config, warnings=(f"{path}: {_NO_FILE}",))
    return load_text(read_text(path), path, environ, strict=strict, checks=checks)


def load_text(
    text: str, path: Path, environ: Mapping[str, str], *, strict: bool = False, checks: Checks | None = None
) -> Config:
    """Read a text that is, or is about to be, the content of `path`; otherwise as `load`."""
    faults = Faults(str(path))
    tree = read_tree(text, faults)
    if tree is None:
        faults.raise_if_any()
        tree = Node(0, 0, None)
    if tree.value is None and not tree.is_broken:
        faults.add(0, 0, "", "the file is empty; run 'claude-proxy add', or write a list of entries")
        faults.raise_if_any()
    reader = _Reader(path, environ, faults, checks or Checks())
    config = reader.read(tree, strict=strict)
    faults.raise_if_any()
    return replace(config, hash=config_hash(tree.plain()))


def read_text(path: Path) -> str:
    """Return the text of a models.yaml with its line ends unchanged.

    Raises:
        ConfigError: there is none, it cannot be read, or it is not UTF-8.
        UnsafePermissions: others may change or replace it. It decides where every key goes.
    """
    faults = Faults(str(path))
    remedy = "run 'claude-proxy add' to write one, or name another with --models"
    try:
        data = read_trusted(path, MAX_BYTES + 1)
        return data.decode("utf-8-sig")
    except Untrusted as exc:
        faults.add(0, 0, "", f"not read, since others may change it: {exc}", is_permission=True)
    except FileNotFoundError:
        faults.add(0, 0, "", f"there is no such file; {remedy}")
    except IsADirectoryError:
        faults.add(0, 0, "", "expected a file, and this is a folder; move it, or name another with --models")
    except OSError as exc:
        faults.add(0, 0, "", f"cannot be read ({(exc.strerror or 'unknown reason').lower()}); {remedy}")
    except UnicodeDecodeError as exc:
        if len(data) > MAX_BYTES:  # `load_text` reports the size instead
            return data.decode("utf-8", "replace")
        before = data[: exc.start]
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        line = before.count(b"\n") + 1
        faults.add(line, column, "", "expected UTF-8; this byte is not; save the file as UTF-8")
    faults.raise_if_any()
    raise AssertionError("every branch above has added a fault")


class _Reader:
    """Reads one file once."""

    def __init__(self, path: Path, environ: Mapping[str, str], faults: Faults, checks: Checks) -> None:
        self._path = path
        self._checks = checks
        self._findings = Findings(faults)
        self._entries = EntryReader(path.parent, environ, self._findings, checks)
        self._has_secrets = False

    def read(self, tree: Node, *, strict: bool) -> Config:
        settings: dict[str, Any] = {}
        settings_at: dict[str, str] = {}
        models = tree
        if isinstance(tree.value, dict):
            for name in tree.value:
                if name not in TOP_KEYS:
                    self._findings.fault_at(
                        tree.keys[name], short(name), f"unknown key; {hint(name, TOP_KEYS)}"
                    )
            settings, settings_at = self._settings(tree)
            models = tree.value.get("models") or Node(tree.line, tree.column, None)
        routes = self._routes(models, is_top=models is tree)
        table = RouteTable(routes, rules=self._rules(tree))
        self._check_named_models(tree, models, table)
        self._check_rules(tree, models, table)
        self._check_permissions(strict=strict)
        lines = tuple(fault.shown_in(str(self._path)) for fault in sorted(self._findings.warnings))
        return Config(table, settings, settings_at, self._path, lines)

    # -- settings

    def _settings(self, tree: Node) -> tuple[dict[str, Any], dict[str, str]]:
        node = tree.value.get("settings")
        # A block that is commented out leaves ``settings:`` with an empty value.
        if node is None or node.value is None:
            return {}, {}
        if not isinstance(node.value, dict):
            if not node.is_broken:
                self._findings.fault(
                    node, "settings", f"expected a mapping of settings; got {shown(node.plain())}"
                )
            return {}, {}
        values = {name: child.plain() for name, child in node.value.items() if not child.is_broken}
        if self._checks.settings is not None:
            for name, (text, is_name) in self._checks.settings(values).items():
                self._findings.fault_at(node.place((name,), on_key=is_name), f"settings.{name}", text)
        if isinstance(values.get("auth_token"), str) and "${" not in values["auth_token"]:
            self._has_secrets = True
        if isinstance(values.get("store"), str) and has_password(values["store"]):
            self._has_secrets = True
        where = {name: node.place((name,)) for name in values}
        return values, {name: f"{self._path}:{line}:{column}" for name, (line, column) in where.items()}

    # -- entries

    def _routes(self, models: Node, *, is_top: bool) -> tuple[ModelRoute, ...]:
        if not isinstance(models.value, list):
            if models.is_broken:
                return ()
            forms = "a list of entries" + (" or a mapping with 'settings' and 'models'" if is_top else "")
            self._findings.fault(
                models, "" if is_top else "models", f"expected {forms}; got {shown(models.plain())}"
            )
            return ()
        if not models.value:
            self._findings.fault(models, "models", "expected at least one entry; got an empty list")
        routes: list[ModelRoute] = []
        nodes: list[Node] = []
        indices: list[int] = []
        for index, node in enumerate(models.value):
            route = self._entries.read(node, f"models[{index}]")
            if route is not None:
                routes.append(route)
                nodes.append(node)
                indices.append(index)
        self._check_ids(models.value)
        by_index = dict(zip(indices, routes, strict=True))
        self._check_fallbacks(by_index, nodes)
        warn_of_targets_without_keys(by_index, nodes, self._findings)
        return tuple(routes)

    def _check_fallbacks(self, routes: Mapping[int, ModelRoute], nodes: Iterable[Node]) -> None:
        """Warn of fallbacks that will be skipped because the client's key is not for them.

        See docs/spec/design.md#client-key.
        """
        by_id = {route.model_id: route for route in routes.values()}
        for (index, route), node in zip(routes.items(), nodes, strict=True):
            for place, name in _texts(node, "fallback", f"models[{index}]"):
                other = by_id.get(name.value)
                if other is None or other.key_origin is not None or other.is_demo:
                    continue
                if origin_of(other.api_base) != origin_of(route.api_base) and not is_loopback_url(
                    other.api_base
                ):
                    text = (
                        f"{shown(name.value)} is at another address and will be passed over, since the client's key "
                        "does not go there; give it an api_key"
                    )
                    self._findings.warn(name, place, text)

    def _check_ids(self, entries: Iterable[Node]) -> None:
        """Report ids, aliases and fallbacks that contradict each other.

        It reads the ids as written, so that an invalid entry hides no other fault.
        """
        ids: dict[str, int] = {}
        mappings = [
            (f"models[{index}]", node) for index, node in enumerate(entries) if isinstance(node.value, dict)
        ]
        for subject, node in mappings:
            id_node = node.value.get("model_id")
            if id_node is None or not isinstance(id_node.value, str):
                continue
            if id_node.value in ids:
                first = ids[id_node.value]
                text = f"{shown(id_node.value)} is the id of the entry on line {first} too; rename one"
                self._findings.fault(id_node, f"{subject}.model_id", text)
            else:
                ids[id_node.value] = id_node.line
        check_targets(mappings, ids, self._findings)
        alias_lines: dict[str, int] = {}
        for subject, node in mappings:
            own = node.value["model_id"].value if "model_id" in node.value else None
            for place, alias in _texts(node, "aliases", subject):
                if alias.value in ids and alias.value != own:
                    line = ids[alias.value]
                    self._findings.fault(
                        alias,
                        place,
                        f"{shown(alias.value)} is the id of the entry on line {line}; rename one",
                    )
                elif alias.value in alias_lines:
                    line = alias_lines[alias.value]
                    self._findings.warn(
                        alias,
                        place,
                        f"{shown(alias.value)} is an alias on line {line} already, and that one wins",
                    )
                else:
                    alias_lines[alias.value] = alias.line
            for place, name in _texts(node, "fallback", subject):
                if name.value == own:
                    self._findings.fault(name, place, "an entry cannot be its own fallback; remove it")
                elif name.value not in ids:
                    self._findings.fault(
                        name, place, f"no entry has the model_id {shown(name.value)}; {hint(name.value, ids)}"
                    )

    def _rules(self, tree: Node) -> tuple[RouteRule, ...]:
        """Read the rules for all entries."""
        node = tree.value.get("routes") if isinstance(tree.value, dict) else None
        if node is None or node.value is None or node.is_broken:
            return ()
        is_valid = True

        def report(path: tuple[str | int, ...], text: str, on_key: bool) -> None:
            nonlocal is_valid
            is_valid = False
            below = "".join(f"[{step}]" if isinstance(step, int) else f".{short(step)}" for step in path)
            self._findings.fault_at(node.place(path, on_key=on_key), f"routes{below}", text)

        values = route_rules_kind().read(node.plain(), report)
        return build_rules(values, "routes") if values is not None and is_valid else ()

    def _check_rules(self, tree: Node, models: Node, table: RouteTable) -> None:
        """Report rules that name no entry, and rules of entries that lead back to where they came from."""
        entries = models.value if isinstance(models.value, list) else []
        if len(table.routes) < len(entries):
            return
        places = {f"models[{index}].routes": node for index, node in enumerate(entries)}
        places["routes"] = tree
        known = table.ids()

        def use_node(rule: RouteRule) -> Node:
            place, _, index = rule.name.removesuffix("]").rpartition("[")
            line, column = places[place].place(("routes", int(index), "use"))
            return Node(line, column, None)

        owned = [(route.model_id, rule) for route in table.routes for rule in route.routes]
        is_valid = True
        for rule in (*(rule for _, rule in owned), *table.rules):
            if rule.use not in known:
                is_valid = False
                text = f"no entry has the model_id {shown(rule.use)}; {hint(rule.use, known)}"
                self._findings.fault(use_node(rule), f"{rule.name}.use", text)
        for owner, rule in owned if is_valid else ():
            back = _way_back(table, owner, rule, (rule,)) if rule.use != owner else None
            if back is not None:
                text = (
                    f"leads back to {shown(owner)} by {back.name}; a request is handed over once, so give one of "
                    "the two another condition"
                )
                self._findings.fault(use_node(rule), f"{rule.name}.use", text)

    def _check_named_models(self, tree: Node, models: Node, table: RouteTable) -> None:
        """Report classifiers of auto mode, and describers of images, that cannot be that.

        With a faulty entry, it may be that one's.
        """
        entries = models.value if isinstance(models.value, list) else []
        if len(table.routes) < len(entries):
            return
        holders = [(f"models[{index}]", node) for index, node in enumerate(entries)]
        if isinstance(tree.value, dict) and isinstance(tree.value.get("settings"), Node):
            holders.append(("settings", tree.value["settings"]))
        for subject, node in holders:
            for key, name in (("auto_mode", "classifier"), ("images", "describe_with")):
                value = _named(node, key, name)
                if value is None:
                    continue
                fault = fault_of_model(value.value, table)
                if fault is None and key == "images" and self._checks.sees_images is not None:
                    fault = fault_of_describer(value.value, table, self._checks.sees_images)
                if fault is not None:
                    self._findings.fault(value, f"{subject}.{key}.{name}", fault)

    # -- the file itself

    def _check_permissions(self, *, strict: bool) -> None:
        if (self._has_secrets or self._entries.has_secrets) and is_open_to_others(self._path):
            text = f"others can read this file, and it holds a key; run 'chmod 600 {self._path}'"
            self._findings.warn(Node(0, 0, None), "", text, is_permission=True)
        if strict:
            self._findings.faults.extend(each for each in self._findings.warnings if each.is_permission)


def fault_of_model(name: str, table: RouteTable) -> str | None:
    """Return what is wrong with the name of a model that an entry is to serve, or None."""
    if table.resolve(name) is not None:
        return None
    return f"no entry serves the model {shown(name)}; {hint(name, table.ids())}"


def fault_of_describer(name: str, table: RouteTable, sees_images: Callable[[ModelRoute], bool]) -> str | None:
    """Return why the model that an entry serves cannot describe images, or None."""
    route = table.resolve(name)
    if route is None or sees_images(route):
        return None
    again = ", and would have to be described images in turn" if route.images.get("describe_with") else ""
    return (
        f"{shown(name)} is served by the entry {shown(route.model_id)}, which sees no images itself{again}; name one "
        "that does, or set vision: true there if it does"
    )


def _named(node: Node, key: str, name: str) -> Node | None:
    """Return the value of ``key: {name: MODEL}``, if it names a model."""
    value: Node | None = node
    for step in (key, name):
        value = value.value.get(step) if value is not None and isinstance(value.value, dict) else None
    return value if value is not None and isinstance(value.value, str) and value.value != "off" else None


def _way_back(
    table: RouteTable, owner: str, rule: RouteRule, taken: tuple[RouteRule, ...]
) -> RouteRule | None:
    """Return the rule that hands a request, for which all of `taken` hold, back to `owner`."""
    for following in table.by_id(rule.use).routes:
        if following in taken or not all(following.may_hold_with(each) for each in taken):
            continue
        if following.use == owner:
            return following
        found = _way_back(table, owner, following, (*taken, following))
        if found is not None:
            return found
    return None


def _texts(node: Node, name: str, subject: str) -> list[tuple[str, Node]]:
    """Return the texts of a list-valued key with their subjects; a single text is a list of one."""
    child = node.value.get(name)
    if child is None:
        return []
    if isinstance(child.value, list):
        items = [(f"{subject}.{name}[{index}]", item) for index, item in enumerate(child.value)]
    else:
        items = [(f"{subject}.{name}", child)]
    return [(place, item) for place, item in items if isinstance(item.value, str)]
