"""Decide each setting: flag > environment > ``settings:`` of models.yaml > default
(docs/spec/design.md#environment).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from proxyd.config.auto_mode import read_rules
from proxyd.config.database_url import DatabaseUrl, read_store
from proxyd.config.faults import hint
from proxyd.config.kinds import Report
from proxyd.config.otel import Otel, otel_of
from proxyd.config.secrets import Credential, read_credential
from proxyd.config.settings import TABLE, Setting, Settings
from proxyd.config.tls import Tls, server_context, tls_of
from proxyd.config.web_search import faults_in, read_key
from proxyd.errors import ConfigError
from proxyd.secret import Secret
from proxyd.urls import is_loopback

__all__ = ["decide_settings", "faults_in_file"]

#: A shorter token could be guessed.
_MIN_TOKEN_CHARS = 16

#: Variables with our prefix that are not settings.
_OTHER_VARIABLES = frozenset({"CLAUDE_PROXY_MODELS"})


def decide_settings(
    flags: Mapping[str, Any],
    environ: Mapping[str, str],
    file_values: Mapping[str, Any] | None = None,
    file_places: Mapping[str, str] | None = None,
    *,
    folder: Path = Path(),
) -> Settings:
    """Return the settings in force.

    Args:
        flags: values by name of the setting; None for a flag that was not given.
        environ: the environment. An empty variable counts as not set, as in a unit's ``EnvironmentFile``.
        file_values: the plain values under ``settings:``.
        file_places: the position of each, ``FILE:LINE:COLUMN``.
        folder: base of relative paths among `file_values`, the folder of models.yaml.

    Raises:
        ConfigError: one line per fault, all of them.
    """
    loader = _Loader(flags, environ, file_values or {}, file_places or {}, folder)
    values = loader.values()
    if loader.faults:
        raise ConfigError("\n".join(loader.faults))
    return Settings(**values, origins=loader.origins, warnings=_suspicious_variables(environ))


def faults_in_file(values: Mapping[str, Any]) -> dict[str, tuple[str, bool]]:
    """Return the faults under ``settings:`` by name, each with a flag for a fault of the name itself (see
    `models.Checks`).
    """
    faults: dict[str, tuple[str, bool]] = {}
    for name, value in values.items():
        if name not in TABLE:
            faults[name] = (f"unknown setting; {hint(name, TABLE)}", True)
            continue
        TABLE[name].kind.read(value, _first_fault(faults, name))
    return faults


class _Loader:
    """Decides all settings once; faults are collected, not raised."""

    def __init__(
        self,
        flags: Mapping[str, Any],
        environ: Mapping[str, str],
        file_values: Mapping[str, Any],
        file_places: Mapping[str, str],
        folder: Path,
    ) -> None:
        unknown = set(flags) - set(TABLE)
        if unknown:
            raise AssertionError(f"flags that are not settings: {unknown}")
        self._flags = flags
        self._environ = environ
        self._file_values = file_values
        self._file_places = file_places
        self._folder = folder
        self.origins: dict[str, str] = {}
        self.faults: list[str] = []

    def values(self) -> dict[str, Any]:
        for name, (sentence, _) in faults_in_file(self._file_values).items():
            self._fault(f"{self._place(name)}: settings.{name}", sentence)
        values = {name: self._value(row) for name, row in TABLE.items()}
        values["auth_token"] = self._read_token(values["auth_token"])
        values["store"] = self._read_store(values["store"])
        for name in ("ca_file", "client_cert"):
            values[name] = self._resolve_pem_file(name, values[name])
        values["auto_mode_rules"] = self._read_rules(values["auto_mode"].get("rules"))
        values["web_search_key"] = self._read_search_key(values["web_search"])
        values["otel_target"] = self._read_otel(values["otel"])
        values["tls_address"] = tls = self._read_tls(values["tls"], values["host"])
        self._check_exposure("host", values["host"], values)
        if tls is not None:
            self._check_exposure("tls", tls.host, values)
        return values

    def _value(self, row: Setting) -> Any:
        flag, variable = self._flags.get(row.name), self._environ.get(row.env, "").strip()
        if flag is not None:
            raw, origin = flag, row.flag or f"--{row.name.replace('_', '-')}"
        elif variable:
            raw, origin = variable, row.env
        elif row.name in self._file_values:
            # `values` has reported its faults already, with their places.
            value = row.kind.read(self._file_values[row.name], lambda *_: None)
            self.origins[row.name] = self._place(row.name)
            return row.default if value is None else value
        else:
            return row.default
        self.origins[row.name] = origin
        faults: dict[str, tuple[str, bool]] = {}
        raw = row.kind.from_text(raw) if isinstance(raw, str) else raw
        value = row.kind.read(raw, _first_fault(faults, row.name))
        for sentence, _ in faults.values():
            self._fault(origin, sentence)
        return row.default if value is None else value

    def _read_token(self, reference: str | None) -> Secret | None:
        if reference is None:
            return None
        origin = self.origins["auth_token"]
        try:
            credential = read_credential(reference, self._environ, self._folder)
        except ValueError as exc:
            self._fault(origin, f"auth_token: {exc}")
            return None
        if credential.missing is not None:
            # At start, unlike an entry's key: without its token the daemon would accept everybody.
            self._fault(origin, f"auth_token: {credential.missing}")
        if credential.secret is not None and len(credential.secret.reveal()) < _MIN_TOKEN_CHARS:
            self._fault(
                origin,
                f"auth_token: expected at least {_MIN_TOKEN_CHARS} characters, so that nobody guesses it; "
                "make one with 'openssl rand -hex 32'",
            )
            return None
        return credential.secret

    def _read_store(self, text: str | None) -> DatabaseUrl | None:
        if text is None:
            return None
        try:
            return read_store(text, self._environ, self._folder)
        except ValueError as exc:
            # At start, unlike an entry's key: another store than the one that is meant has other keys.
            self._fault(self.origins["store"], f"store: {exc}")
            return None

    def _read_rules(self, path: str | None) -> str:
        if path is None:
            return ""
        is_from_file = self.origins["auto_mode"] == self._place("auto_mode")
        try:
            return read_rules(path, self._folder if is_from_file else Path())
        except ValueError as exc:
            self._fault(self.origins["auto_mode"], f"auto_mode.rules: {exc}")
            return ""

    def _read_search_key(self, values: Mapping[str, Any]) -> Credential | None:
        for name, sentence in faults_in(values).items():
            self._fault(self.origins["web_search"], f"web_search.{name}: {sentence}")
        try:
            return read_key(values, self._environ, self._folder)
        except ValueError as exc:
            self._fault(self.origins["web_search"], f"web_search.api_key: {exc}")
            return None

    def _resolve_pem_file(self, name: str, path: str) -> str:
        if not path:
            return path
        # A path in models.yaml is relative to it, one typed in a shell to where it was typed.
        is_from_file = self.origins[name] == self._place(name)
        full = (self._folder if is_from_file else Path()) / os.path.expanduser(path)
        if not full.is_file():
            self._fault(self.origins[name], f"{name}: expected a PEM file; there is none at {full}")
        return str(full)

    def _read_tls(self, values: Mapping[str, Any], host: str) -> Tls | None:
        is_from_file = self.origins.get("tls") == self._place("tls")
        try:
            tls = tls_of(values, host, self._folder if is_from_file else Path())
            if tls is not None:
                server_context(tls)
        except ValueError as exc:
            self._fault(self.origins["tls"], f"tls: {exc}")
            return None
        return tls

    def _read_otel(self, values: Mapping[str, Any]) -> Otel | None:
        try:
            return otel_of(values, self._environ, self._folder)
        except ValueError as exc:
            self._fault(self.origins["otel"], f"otel: {exc}")
            return None

    def _check_exposure(self, name: str, host: str, values: Mapping[str, Any]) -> None:
        """Refuse to listen beyond loopback without a token: each call costs the user money
        (docs/spec/operations.md#e1).
        """
        if is_loopback(host) or values["auth_token"] is not None or values["insecure"]:
            return
        if any(fault.startswith(f"{self.origins.get('auth_token')}:") for fault in self.faults):
            return  # there is a token, and its fault is reported already
        remedy = "set auth_token (CLAUDE_PROXY_AUTH_TOKEN), or --insecure if nobody else can reach it"
        self._fault(self.origins[name], f"{host} is beyond loopback and there is no token; {remedy}")

    def _place(self, name: str) -> str:
        return self._file_places.get(name, "settings")

    def _fault(self, origin: str, text: str) -> None:
        self.faults.append(f"{origin}: {text}")


def _first_fault(faults: dict[str, tuple[str, bool]], name: str) -> Report:
    """Return a reporter that keeps the first fault of the setting `name`."""

    def report(path: tuple[str | int, ...], text: str, on_key: bool) -> None:
        below = ".".join(step for step in path if isinstance(step, str))
        faults.setdefault(name, (f"{below}: {text}" if below else text, False))

    return report


def _suspicious_variables(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return a line for each variable with our prefix that is no setting, most often a typing error."""
    known = {row.env for row in TABLE.values()} | _OTHER_VARIABLES
    # A setting whose variable is short, such as PORT, may be written with the prefix.
    long_names = {f"CLAUDE_PROXY_{name.upper()}": row.env for name, row in TABLE.items()}
    unknown = sorted(name for name in environ if name.startswith("CLAUDE_PROXY_") and name not in known)
    return tuple(
        f"{name}: not a variable of claude-proxy; "
        + (f"use {long_names[name]}" if name in long_names else hint(name, known))
        for name in unknown
    )
