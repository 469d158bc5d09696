"""Entries of models.yaml: each node of the list -> a `ModelRoute`, or its faults.

The keys and the kinds of their values are defined in ``keys.py`` and ``kinds.py``; this module checks what keys of
one entry mean together, resolves its API key and builds its route.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxyd.codecs.formats import CHAT
from proxyd.config.auto_mode import read_rules
from proxyd.config.faults import Fault, Faults, hint, short, shown
from proxyd.config.keys import APPLICATION_DEFAULT, DEMO_BASE, ENTRY_KEYS
from proxyd.config.pools import Target, resolve_keys
from proxyd.config.route_rules import build_rules
from proxyd.config.routes import ModelRoute, Pricing, Timeouts
from proxyd.config.secrets import read_credential
from proxyd.config.web_search import faults_in, read_key
from proxyd.config.yaml import Node
from proxyd.redaction import CREDENTIAL_HEADERS
from proxyd.urls import is_private_host

__all__ = ["Checks", "EntryReader", "Findings"]


@dataclass(frozen=True)
class Checks:
    """Checks that depend on packages which this one may not import; None skips a check.

    Attributes:
        providers: the known profile names.
        quirk: ``(name, value)`` -> a description of the fault, or None.
        settings: the values under ``settings:`` -> ``{name: (fault, whether the name itself is at fault)}``.
        sees_images: whether the model of an entry does.
    """

    providers: Collection[str] | None = None
    quirk: Callable[[str, Any], str | None] | None = None
    settings: Callable[[Mapping[str, Any]], Mapping[str, tuple[str, bool]]] | None = None
    sees_images: Callable[[ModelRoute], bool] | None = None


@dataclass(frozen=True)
class Findings:
    """Faults and warnings of one file."""

    faults: Faults
    warnings: list[Fault] = field(default_factory=list)

    def fault(self, node: Node, subject: str, text: str) -> None:
        """Report a fault of `node`."""
        self.faults.add(node.line, node.column, subject, text)

    def fault_at(self, place: tuple[int, int], subject: str, text: str) -> None:
        """Report a fault at a line and column."""
        self.faults.add(*place, subject, text)

    def warn(self, node: Node, subject: str, text: str, *, is_permission: bool = False) -> None:
        """Report something that is allowed but unwise."""
        self.warnings.append(Fault(node.line, node.column, subject, text, is_permission))


class EntryReader:
    """Reads the entries of one file.

    Args:
        environ: where ``${NAME}`` is looked up.
        folder: base of relative key files.

    Attributes:
        has_secrets: an entry holds a literal key or a credential header.
    """

    def __init__(self, folder: Path, environ: Mapping[str, str], findings: Findings, checks: Checks) -> None:
        self._folder = folder
        self._environ = environ
        self._findings = findings
        self._checks = checks
        self.has_secrets = False

    def read(self, node: Node, subject: str) -> ModelRoute | None:
        """Return the entry as a route, or None after all its faults are reported."""
        if not isinstance(node.value, dict):
            if not node.is_broken:
                text = f"expected a mapping with model_id and api_base; got {shown(node.plain())}"
                self._findings.fault(node, subject, text)
            return None
        values: dict[str, Any] = {}
        is_valid = True
        hints: list[str] = []  # what to write in place of unknown keys
        for name, child in node.value.items():
            if name not in ENTRY_KEYS:
                hints.append(hint(name, ENTRY_KEYS))
                self._findings.fault_at(
                    node.keys[name], f"{subject}.{short(name)}", f"unknown key; {hints[-1]}"
                )
                is_valid = False
                continue
            value = self._read_value(name, child, f"{subject}.{name}")
            is_valid = is_valid and value is not None
            values[name] = value
        for name in ("model_id", "api_base"):
            if name not in values:
                is_valid = False
                if not any(f"'{name}" in line for line in hints):
                    self._findings.fault(node, subject, f"{name} is missing; every entry needs one")
        if values.get("routes") is not None:
            values["routes"] = build_rules(values["routes"], f"{subject}.routes")
        # A list, so that all of them report.
        valid_parts = [
            self._check_combinations(node, subject, values),
            self._check_profile(node, subject, values),
            self._read_credential(node, subject, values),
            self._read_rules(node, subject, values),
            self._read_search_key(node, subject, values),
        ]
        return _build_route(values) if is_valid and all(valid_parts) else None

    def _read_value(self, name: str, node: Node, subject: str) -> Any:
        """Return the value as the key's kind reads it, or None after a report."""
        if node.is_broken:
            return None
        is_valid = True

        def report(path: tuple[str | int, ...], text: str, on_key: bool) -> None:
            nonlocal is_valid
            is_valid = False
            below = "".join(f"[{step}]" if isinstance(step, int) else f".{short(step)}" for step in path)
            self._findings.fault_at(node.place(path, on_key=on_key), subject + below, text)

        value = ENTRY_KEYS[name].kind.read(node.plain(), report)
        return value if is_valid else None

    def _check_combinations(self, node: Node, subject: str, values: dict[str, Any]) -> bool:
        """Report keys of one entry that contradict each other or its mode; return whether there are none."""
        is_valid = True

        def wrong(name: str, text: str, *, on_key: bool = True) -> None:
            nonlocal is_valid
            is_valid = False
            self._findings.fault_at(node.place((name,), on_key=on_key), f"{subject}.{name}", text)

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
        if values.get("vision") and (values.get("images") or {}).get("describe_with"):
            wrong("images", "a model with vision: true gets the images themselves; remove one of the two")
        mode = "direct" if direct or dialect == "anthropic" else "translated"
        for name in values:
            needed = ENTRY_KEYS[name].mode
            # ``can_stream: true`` holds for every direct entry.
            if needed is not None and needed != mode and (name, values[name]) != ("can_stream", True):
                wrong(name, _MODE_REMEDIES[name])
        if values.get("api_base") == DEMO_BASE:
            if mode == "direct" or dialect not in (None, "openai", CHAT.name):
                wrong(
                    "api_base", f"{DEMO_BASE} speaks Chat Completions; remove direct or format", on_key=False
                )
            for name in ("api_key", "api_keys", "access_token", "provider", "extra_headers"):
                if name in values:
                    wrong(name, f"{DEMO_BASE} takes none; remove it")
        if "api_key" in values and "api_keys" in values:
            wrong("api_keys", "api_key stands there too; move its key into this list")
        for name in ("api_key", "api_keys"):
            if name in values and "access_token" in values:
                wrong("access_token", f"{name} stands there too; keep one of the two")
        if "balance" in values and "targets" not in values:
            wrong("balance", "means something with targets only; name the entries there, or remove it")
        return is_valid

    def _read_credential(self, node: Node, subject: str, values: dict[str, Any]) -> bool:
        """Resolve the key and put the result into `values`; warn of keys that others could read."""
        base = values.get("api_base")
        if base is not None and base.startswith("http:") and not is_private_host(base):
            text = "plain http to a public host shows keys and prompts to the network; use https"
            self._findings.warn(node.value["api_base"], f"{subject}.api_base", text)
        if any(name.lower() in CREDENTIAL_HEADERS for name in values.get("extra_headers") or {}):
            self.has_secrets = True
        if values.get("api_keys") is not None:
            return self._read_pool(node, subject, values)
        name = "api_key" if values.get("access_token") is None else "access_token"
        if values.get(name) is None:
            return True
        key_node, written = node.value[name], values.pop(name)
        values["is_token"] = name == "access_token"
        if values["is_token"] and written.strip() == APPLICATION_DEFAULT:
            values["obtains_token"], values["key_origin"] = True, APPLICATION_DEFAULT
            return True
        try:
            credential = read_credential(written, self._environ, self._folder)
        except ValueError as exc:
            self._findings.fault(key_node, f"{subject}.{name}", str(exc))
            return False
        self.has_secrets = self.has_secrets or credential.origin == "literal"
        values["api_key"], values["key_origin"] = credential.secret, credential.origin
        if credential.missing is not None:
            values["missing_key"] = f"model '{values.get('model_id')}' has no key: {credential.missing}"
            if credential.is_of_keyring:  # unlike a variable, which the vendors that are not used do not have
                self._findings.warn(key_node, f"{subject}.{name}", credential.missing)
        if credential.open_file is not None:
            text = f"others can read the key file; run 'chmod 600 {credential.open_file}'"
            self._findings.warn(key_node, f"{subject}.{name}", text, is_permission=True)
        return True

    def _read_pool(self, node: Node, subject: str, values: dict[str, Any]) -> bool:
        """Resolve the keys of a pool and put the result into `values`."""
        if not all("key" in each and each["key"] is not None for each in values["api_keys"]):
            return False  # reported already
        pool = resolve_keys(values["api_keys"], self._environ, self._folder)

        def place(index: int) -> tuple[Node, str]:
            return Node(*node.place(("api_keys", index)), None), f"{subject}.api_keys[{index}]"

        for index, text in pool.faults.items():
            self._findings.fault(*place(index), text)
        for index, text in pool.missing.items() if pool.keys else ():
            self._findings.warn(
                *place(index), f"{text}; until then the other keys of this entry serve its calls"
            )
        for index, path in pool.open_files.items():
            text = f"others can read the key file; run 'chmod 600 {path}'"
            self._findings.warn(*place(index), text, is_permission=True)
        self.has_secrets = self.has_secrets or any(key.origin == "literal" for key in pool.keys)
        references = [each["key"].strip() for each in values["api_keys"]]
        values["api_keys"] = pool.keys
        if pool.keys:
            values["api_key"] = pool.keys[0].secret
            values["key_origin"] = ", ".join(dict.fromkeys(key.origin for key in pool.keys))
        elif not pool.faults:
            values["key_origin"] = ", ".join(references)
            values["missing_key"] = (
                f"model '{values.get('model_id')}' has no key: {'; '.join(pool.missing.values())}"
            )
        return not pool.faults

    def _read_rules(self, node: Node, subject: str, values: dict[str, Any]) -> bool:
        """Read the file of rules for auto mode and put its text into `values`."""
        path = (values.get("auto_mode") or {}).get("rules")
        if path is None:
            return True
        try:
            values["auto_mode_rules"] = read_rules(path, self._folder)
        except ValueError as exc:
            place = node.place(("auto_mode", "rules"))
            self._findings.fault_at(place, f"{subject}.auto_mode.rules", str(exc))
            return False
        return True

    def _read_search_key(self, node: Node, subject: str, values: dict[str, Any]) -> bool:
        """Resolve the key of the search engine and put the result into `values`."""
        config = values.get("web_search") or {}
        faults = dict(faults_in(config))
        try:
            credential = read_key(config, self._environ, self._folder)
        except ValueError as exc:
            faults["api_key"], credential = str(exc), None
        for name, text in faults.items():
            self._findings.fault_at(node.place(("web_search", name)), f"{subject}.web_search.{name}", text)
        if credential is not None:
            self.has_secrets = self.has_secrets or credential.origin == "literal"
            values["web_search_key"] = credential
        return not faults

    def _check_profile(self, node: Node, subject: str, values: dict[str, Any]) -> bool:
        """Report an unknown provider and invalid quirks; return whether there are none."""
        is_valid = True
        provider, known = values.get("provider"), self._checks.providers
        if provider is not None and known is not None and provider not in known:
            self._findings.fault(
                node.value["provider"], f"{subject}.provider", f"unknown provider; {hint(provider, known)}"
            )
            is_valid = False
        if self._checks.quirk is not None:
            for name, value in (values.get("quirks") or {}).items():
                text = self._checks.quirk(name, value)
                if text is not None:
                    self._findings.fault_at(node.place(("quirks", name)), f"{subject}.quirks.{name}", text)
                    is_valid = False
        return is_valid


_NEEDS_TRANSLATION = "means something for a translated entry only, and this one is direct; "
#: Fault texts of keys in the wrong mode.
_MODE_REMEDIES = {
    "can_stream": _NEEDS_TRANSLATION + "remove it",
    "reasoning_effort": _NEEDS_TRANSLATION + "use extra_body: {output_config: {effort: high}}",
    "vision": _NEEDS_TRANSLATION + "remove it",
    "images": _NEEDS_TRANSLATION + "remove it; a rule with has_image hands images to another entry",
    "quirks": _NEEDS_TRANSLATION + "use omit, extra_body or extra_headers",
    "omit": "means something for a direct entry only, and this one is translated; remove it",
}


def _build_route(values: Mapping[str, Any]) -> ModelRoute:
    """Return the route of a valid entry."""
    rest = dict(values)
    dialect, context = rest.pop("format", None), rest.pop("context", None)
    rest.setdefault("direct", dialect == "anthropic")
    rest["format"] = CHAT.name if dialect == "openai" else None if dialect == "anthropic" else dialect
    rest.setdefault("max_input_tokens", context)
    rest.setdefault("model_name", rest["model_id"])
    if "targets" in rest:
        rest["targets"] = _with_itself(rest["model_id"], tuple(Target(**each) for each in rest["targets"]))
    if "pricing" in rest:
        rest["pricing"] = Pricing(**rest["pricing"])
    if "timeouts" in rest:
        rest["timeouts"] = Timeouts(**rest["timeouts"])
    return ModelRoute(**rest)


def _with_itself(model_id: str, targets: tuple[Target, ...]) -> tuple[Target, ...]:
    """Return `targets` with the entry itself, which stands first where it is not named."""
    return targets if any(each.use == model_id for each in targets) else (Target(model_id), *targets)
