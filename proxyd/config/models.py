"""models.yaml: the routes a user has configured (docs/spec/design.md#models-yaml).

`load` reads the file into a frozen `Config`; the daemon swaps the whole of it at a reload, so that a request
sees one table from its beginning to its end. What an entry may hold stands in ``config/keys.py``, what a
value may be in ``config/kinds.py``; here is what keys and entries mean together.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proxyd.config.faults import Fault, Faults, hint, short, shown
from proxyd.config.keys import DEMO_BASE, ENTRY_KEYS, TOP_KEYS
from proxyd.config.routes import ModelRoute, Pricing, RouteTable, Timeouts
from proxyd.config.secrets import is_open_to_others, read_credential
from proxyd.config.trust import Untrusted, read_trusted
from proxyd.config.yaml import MAX_BYTES, Node, read_tree
from proxyd.redaction import CREDENTIAL_HEADERS
from proxyd.urls import is_loopback_url, is_private_host, origin_of

__all__ = [
    "Checks",
    "Config",
    "ModelRoute",
    "Pricing",
    "RouteTable",
    "Timeouts",
    "load",
    "load_text",
    "read_text",
]


@dataclass(frozen=True)
class Config:
    """What a models.yaml says.

    Attributes:
        settings: the plain values under ``settings:``, for `proxyd.config.settings`.
        settings_at: where each stands, ``FILE:LINE:COLUMN``.
        secrets_in_file: whether the file itself holds a key.
        warnings: one line per thing that is allowed but unwise, with its place, as faults have it.
    """

    table: RouteTable
    settings: dict[str, Any]
    settings_at: dict[str, str]
    path: Path
    secrets_in_file: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checks:
    """What the reader cannot know by itself, since imports point the other way; None leaves a thing
    unchecked.

    Attributes:
        providers: the known profile names.
        quirk: ``(name, value)`` -> what is wrong with it, or None.
        settings: the values under ``settings:`` -> ``{name: (what is wrong, whether the name itself is)}``.
    """

    providers: Collection[str] | None = None
    quirk: Callable[[str, Any], str | None] | None = None
    settings: Callable[[Mapping[str, Any]], Mapping[str, tuple[str, bool]]] | None = None


def load(
    path: Path, environ: Mapping[str, str], *, strict: bool = False, checks: Checks | None = None
) -> Config:
    """Read a models.yaml.

    Args:
        path: the file; relative key files are looked up beside it.
        environ: where ``${NAME}`` is looked up.
        strict: files with keys that others can read are faults instead of warnings.

    Raises:
        ConfigError: one line per fault, all of them; `UnsafePermissions` if only ``strict`` made them faults.
    """
    return load_text(read_text(path), path, environ, strict=strict, checks=checks)


def load_text(
    text: str, path: Path, environ: Mapping[str, str], *, strict: bool = False, checks: Checks | None = None
) -> Config:
    """As `load`, for a text that is (or is about to be) the content of `path`."""
    faults = Faults(str(path))
    tree = read_tree(text, faults)
    if tree is None:
        faults.raise_if_any()
        tree = Node(0, 0, None)
    if tree.value is None and not tree.is_broken:
        faults.add(
            0, 0, "", "the file is empty; write a list of entries, or run 'claude-proxy init' for an example"
        )
        faults.raise_if_any()
    reader = _Reader(path, environ, faults, checks or Checks())
    config = reader.read(tree, strict=strict)
    faults.raise_if_any()
    return config


def read_text(path: Path) -> str:
    """The text of a models.yaml, line ends as they are.

    Raises:
        ConfigError: there is none, it cannot be read, or it is not UTF-8.
        UnsafePermissions: others may change or exchange it. It decides where every key goes.
    """
    faults = Faults(str(path))
    remedy = "run 'claude-proxy init' to write one, or name another with --models"
    try:
        data = read_trusted(path, MAX_BYTES + 1)
        return data.decode("utf-8-sig")
    except Untrusted as exc:
        faults.add(0, 0, "", f"not read, since others may change it: {exc}", is_permission=True)
    except FileNotFoundError:
        faults.add(0, 0, "", f"there is no such file; {remedy}")
    except IsADirectoryError:
        faults.add(0, 0, "", f"expected a file; this is a folder; {remedy}")
    except OSError as exc:
        faults.add(0, 0, "", f"cannot be read ({(exc.strerror or 'unknown reason').lower()}); {remedy}")
    except UnicodeDecodeError as exc:
        if len(data) > MAX_BYTES:  # what is wrong is the size, and that is said by the reader
            return data.decode("utf-8", "replace")
        before = data[: exc.start]
        column = len(before[before.rfind(b"\n") + 1 :].decode("utf-8", "replace")) + 1
        line = before.count(b"\n") + 1
        faults.add(line, column, "", "expected UTF-8; this byte is not; save the file as UTF-8")
    faults.raise_if_any()
    raise AssertionError("each way to get here has added a fault")


class _Reader:
    """One reading of one file."""

    def __init__(self, path: Path, environ: Mapping[str, str], faults: Faults, checks: Checks) -> None:
        self._path = path
        self._environ = environ
        self._faults = faults
        self._checks = checks
        self._warnings: list[Fault] = []
        self._has_secrets = False

    def read(self, tree: Node, *, strict: bool) -> Config:
        settings: dict[str, Any] = {}
        settings_at: dict[str, str] = {}
        models = tree
        if isinstance(tree.value, dict):
            for name in tree.value:
                if name not in TOP_KEYS:
                    self._fault_at(tree.keys[name], short(name), f"unknown key; {hint(name, TOP_KEYS)}")
            settings, settings_at = self._settings(tree)
            models = tree.value.get("models") or Node(tree.line, tree.column, None)
        routes = self._routes(models, is_top=models is tree)
        self._permissions(strict=strict)
        lines = tuple(fault.shown_in(str(self._path)) for fault in sorted(self._warnings))
        return Config(RouteTable(routes), settings, settings_at, self._path, self._has_secrets, lines)

    # -- settings

    def _settings(self, tree: Node) -> tuple[dict[str, Any], dict[str, str]]:
        node = tree.value.get("settings")
        # ``settings:`` with nothing below it is how a commented-out block looks.
        if node is None or node.value is None:
            return {}, {}
        if not isinstance(node.value, dict):
            if not node.is_broken:
                self._fault(node, "settings", f"expected a mapping of settings; got {shown(node.plain())}")
            return {}, {}
        values = {name: child.plain() for name, child in node.value.items() if not child.is_broken}
        if self._checks.settings is not None:
            for name, (text, is_name) in self._checks.settings(values).items():
                self._fault_at(node.place((name,), on_key=is_name), f"settings.{name}", text)
        if isinstance(values.get("auth_token"), str) and "${" not in values["auth_token"]:
            self._has_secrets = True
        where = {name: node.place((name,)) for name in values}
        return values, {name: f"{self._path}:{line}:{column}" for name, (line, column) in where.items()}

    # -- entries

    def _routes(self, models: Node, *, is_top: bool) -> tuple[ModelRoute, ...]:
        if not isinstance(models.value, list):
            if models.is_broken:
                return ()
            forms = "a list of entries" + (" or a mapping with 'settings' and 'models'" if is_top else "")
            self._fault(models, "" if is_top else "models", f"expected {forms}; got {shown(models.plain())}")
            return ()
        if not models.value:
            self._fault(models, "models", "expected at least one entry; got an empty list")
        routes: list[ModelRoute] = []
        nodes: list[Node] = []
        indices: list[int] = []
        for index, node in enumerate(models.value):
            route = self._entry(node, f"models[{index}]")
            if route is not None:
                routes.append(route)
                nodes.append(node)
                indices.append(index)
        self._together(models.value)
        self._chains(dict(zip(indices, routes, strict=True)), nodes)
        return tuple(routes)

    def _chains(self, routes: Mapping[int, ModelRoute], nodes: Iterable[Node]) -> None:
        """Warn of fallbacks that will be passed over, since the client's key is not for them.

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
                    self._warn(name, place, text)

    def _entry(self, node: Node, subject: str) -> ModelRoute | None:
        """One entry, or None if something is wrong with it; all of that is reported."""
        if not isinstance(node.value, dict):
            if not node.is_broken:
                text = f"expected a mapping with model_id and api_base; got {shown(node.plain())}"
                self._fault(node, subject, text)
            return None
        values: dict[str, Any] = {}
        is_sound = True
        for name, child in node.value.items():
            if name not in ENTRY_KEYS:
                self._fault_at(
                    node.keys[name], f"{subject}.{short(name)}", f"unknown key; {hint(name, ENTRY_KEYS)}"
                )
                is_sound = False
                continue
            value = self._value(name, child, f"{subject}.{name}")
            is_sound = is_sound and value is not None
            values[name] = value
        for name in ("model_id", "api_base"):
            if name not in values:
                self._fault(node, subject, f"{name} is missing; every entry needs one")
                is_sound = False
        # All three report; none is skipped because another found something.
        sound_parts = [
            self._combinations(node, subject, values),
            self._profile(node, subject, values),
            self._credential(node, subject, values),
        ]
        return _route(values) if is_sound and all(sound_parts) else None

    def _value(self, name: str, node: Node, subject: str) -> Any:
        """What the key's kind makes of the value; None if it is at fault."""
        if node.is_broken:
            return None
        is_sound = True

        def report(path: tuple[str | int, ...], text: str, on_key: bool) -> None:
            nonlocal is_sound
            is_sound = False
            below = "".join(f"[{step}]" if isinstance(step, int) else f".{short(step)}" for step in path)
            self._fault_at(node.place(path, on_key=on_key), subject + below, text)

        value = ENTRY_KEYS[name].kind.read(node.plain(), report)
        return value if is_sound else None

    def _combinations(self, node: Node, subject: str, values: dict[str, Any]) -> bool:
        """What keys of one entry must not say together."""
        is_sound = True

        def wrong(name: str, text: str, *, on_key: bool = True) -> None:
            nonlocal is_sound
            is_sound = False
            self._fault_at(node.place((name,), on_key=on_key), f"{subject}.{name}", text)

        direct, dialect = values.get("direct"), values.get("format")
        if None not in (direct, dialect) and direct != (dialect == "anthropic"):
            wrong(
                "format",
                f"'{dialect}' and direct: {shown(direct)} are at odds; keep one of the two",
                on_key=False,
            )
        window, context = values.get("max_input_tokens"), values.get("context")
        if None not in (window, context) and window != context:
            wrong(
                "context",
                f"{context} and max_input_tokens: {window} are at odds; keep one of the two",
                on_key=False,
            )
        mode = "direct" if direct or dialect == "anthropic" else "translated"
        for name in values:
            needed = ENTRY_KEYS[name].mode
            # ``can_stream: true`` is true of every direct entry.
            if needed is not None and needed != mode and (name, values[name]) != ("can_stream", True):
                wrong(name, _MODE_REMEDIES[name])
        if values.get("api_base") == DEMO_BASE:
            if mode == "direct":
                wrong("api_base", f"{DEMO_BASE} speaks the OpenAI API; remove direct or format", on_key=False)
            for name in ("api_key", "provider", "extra_headers"):
                if name in values:
                    wrong(name, f"{DEMO_BASE} takes none; remove it")
        return is_sound

    def _credential(self, node: Node, subject: str, values: dict[str, Any]) -> bool:
        """Look the key up, and put what became of it into `values`; warn of keys that others could read."""
        base = values.get("api_base")
        if base is not None and base.startswith("http:") and not is_private_host(base):
            text = "plain http to a public host shows keys and prompts to the network; use https"
            self._warn(node.value["api_base"], f"{subject}.api_base", text)
        if any(name.lower() in CREDENTIAL_HEADERS for name in values.get("extra_headers") or {}):
            self._has_secrets = True
        if values.get("api_key") is None:
            return True
        key_node = node.value["api_key"]
        try:
            credential = read_credential(values["api_key"], self._environ, self._path.parent)
        except ValueError as exc:
            self._fault(key_node, f"{subject}.api_key", str(exc))
            return False
        self._has_secrets = self._has_secrets or credential.origin == "literal"
        values["api_key"], values["key_origin"] = credential.secret, credential.origin
        if credential.missing is not None:
            values["missing_key"] = f"model '{values.get('model_id')}' has no key: {credential.missing}"
        if credential.open_file is not None:
            text = f"others can read the key file; run 'chmod 600 {credential.open_file}'"
            self._warn(key_node, f"{subject}.api_key", text, is_permission=True)
        return True

    def _profile(self, node: Node, subject: str, values: dict[str, Any]) -> bool:
        """Whether provider and quirks are known."""
        is_sound = True
        provider, known = values.get("provider"), self._checks.providers
        if provider is not None and known is not None and provider not in known:
            self._fault(
                node.value["provider"], f"{subject}.provider", f"unknown provider; {hint(provider, known)}"
            )
            is_sound = False
        if self._checks.quirk is not None:
            for name, value in (values.get("quirks") or {}).items():
                text = self._checks.quirk(name, value)
                if text is not None:
                    self._fault_at(node.place(("quirks", name)), f"{subject}.quirks.{name}", text)
                    is_sound = False
        return is_sound

    def _together(self, entries: Iterable[Node]) -> None:
        """What entries must not say together. Looks at the ids as written, so that one bad entry hides no
        other fault.
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
                self._fault(id_node, f"{subject}.model_id", text)
            else:
                ids[id_node.value] = id_node.line
        alias_lines: dict[str, int] = {}
        for subject, node in mappings:
            own = node.value["model_id"].value if "model_id" in node.value else None
            for place, alias in _texts(node, "aliases", subject):
                if alias.value in ids and alias.value != own:
                    line = ids[alias.value]
                    self._fault(
                        alias,
                        place,
                        f"{shown(alias.value)} is the id of the entry on line {line}; rename one",
                    )
                elif alias.value in alias_lines:
                    line = alias_lines[alias.value]
                    self._warn(
                        alias,
                        place,
                        f"{shown(alias.value)} is an alias on line {line} already, and that one wins",
                    )
                else:
                    alias_lines[alias.value] = alias.line
            for place, name in _texts(node, "fallback", subject):
                if name.value == own:
                    self._fault(name, place, "an entry cannot be its own fallback; remove it")
                elif name.value not in ids:
                    self._fault(
                        name, place, f"no entry has the model_id {shown(name.value)}; {hint(name.value, ids)}"
                    )

    # -- the file itself

    def _permissions(self, *, strict: bool) -> None:
        if self._has_secrets and is_open_to_others(self._path):
            text = f"others can read this file, and it holds a key; run 'chmod 600 {self._path}'"
            self._warnings.append(Fault(0, 0, "", text, is_permission=True))
        if strict:
            self._faults.extend(warning for warning in self._warnings if warning.is_permission)

    def _fault(self, node: Node, subject: str, text: str) -> None:
        self._faults.add(node.line, node.column, subject, text)

    def _fault_at(self, place: tuple[int, int], subject: str, text: str) -> None:
        self._faults.add(*place, subject, text)

    def _warn(self, node: Node, subject: str, text: str, *, is_permission: bool = False) -> None:
        self._warnings.append(Fault(node.line, node.column, subject, text, is_permission))


_NEEDS_TRANSLATION = "means something for a translated entry only, and this one is direct; "
#: What to do about a key in the wrong mode.
_MODE_REMEDIES = {
    "can_stream": _NEEDS_TRANSLATION + "remove it",
    "reasoning_effort": _NEEDS_TRANSLATION + "use extra_body: {output_config: {effort: high}}",
    "vision": _NEEDS_TRANSLATION + "remove it",
    "quirks": _NEEDS_TRANSLATION + "use omit, extra_body or extra_headers",
    "omit": "means something for a direct entry only, and this one is translated; remove it",
}


def _route(values: Mapping[str, Any]) -> ModelRoute:
    """The route of an entry in which nothing is wrong."""
    rest = dict(values)
    dialect, context = rest.pop("format", None), rest.pop("context", None)
    rest.setdefault("direct", dialect == "anthropic")
    rest.setdefault("max_input_tokens", context)
    rest.setdefault("model_name", rest["model_id"])
    if "pricing" in rest:
        rest["pricing"] = Pricing(**rest["pricing"])
    if "timeouts" in rest:
        rest["timeouts"] = Timeouts(**rest["timeouts"])
    return ModelRoute(**rest)


def _texts(node: Node, name: str, subject: str) -> list[tuple[str, Node]]:
    """The texts of a list-valued key with their subjects; one text stands for a list of one."""
    child = node.value.get(name)
    if child is None:
        return []
    if isinstance(child.value, list):
        items = [(f"{subject}.{name}[{index}]", item) for index, item in enumerate(child.value)]
    else:
        items = [(f"{subject}.{name}", child)]
    return [(place, item) for place, item in items if isinstance(item.value, str)]
