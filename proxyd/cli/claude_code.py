"""Variables, settings and arguments with which Claude Code works on a model of models.yaml (docs/spec/claude-code.md).

Claude Code assumes a window of 1 000 000 tokens for every model that it does not know, calls its own small models by
name for titles and subagents, follows proxy variables even to loopback, sends telemetry to Anthropic and to collectors,
and starts in auto mode, whose checks need a classifier of models.yaml.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from proxyd.config.auto_mode import AutoMode
from proxyd.config.route_description import describe, window_of
from proxyd.urls import is_loopback_url

if TYPE_CHECKING:
    from proxyd.config.routes import ModelRoute
    from proxyd.config.settings import Settings

__all__ = [
    "DEFAULT_MODE_NOTICE",
    "DIVERTING_VARIABLES",
    "TELEMETRY_VARIABLES",
    "auto_mode_of",
    "claude_arguments",
    "claude_variables",
    "client_classifier_variables",
    "diverting_variables",
    "missing_key_message",
    "needs_client_key",
    "read_user_settings",
    "telemetry_variables",
]

#: Variables that lead Claude Code past ``ANTHROPIC_BASE_URL`` (docs/spec/claude-code.md#proxy-variables).
DIVERTING_VARIABLES = (
    "CLAUDE_CODE_USE_BEDROCK",
    "CLAUDE_CODE_USE_VERTEX",
    "CLAUDE_CODE_USE_FOUNDRY",
    "CLAUDE_CODE_USE_MANTLE",
    "CLAUDE_CODE_USE_ANTHROPIC_AWS",
    "CLAUDE_CODE_USE_ANTHROPIC_GOOGLE_CLOUD",
    "ANTHROPIC_UNIX_SOCKET",
)
#: Variables that switch on telemetry to a collector, which may hold prompts (docs/spec/claude-code.md#other-traffic).
TELEMETRY_VARIABLES = ("CLAUDE_CODE_ENABLE_TELEMETRY", "ENABLE_BETA_TRACING_DETAILED")
#: Keeps Claude Code from calling Anthropic beside the calls of models; any text but the empty one sets it.
_ESSENTIAL_TRAFFIC = "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC"
#: Keeps it from loading Anthropic's plugin marketplace at its first start, which the variable above does not.
_NO_MARKETPLACE = "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL"
#: Claude Code sends one of these or both; a daemon that needs no key accepts any.
_KEYS = ("ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_API_KEY")
#: Model aliases of Claude Code: each names a default model.
_ALIASES = ("OPUS", "SONNET", "HAIKU", "FABLE")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")

#: Claude Code's own figures, in tokens: the window it assumes, the least that it accepts for compaction, what it keeps
#: free beside the output, the output limit of unknown models (docs/spec/claude-code.md#window).
_LARGE_WINDOW = 1_000_000
_STANDARD_WINDOW = 200_000
_MIN_COMPACT_WINDOW = 100_000
_BUFFER_TOKENS = 13_000
_DEFAULT_OUTPUT = 32_000
#: Parts of a small window: its output limit, and the margin between the threshold of compaction and the window.
_OUTPUT_PART, _MARGIN_PART = 8, 16

DEFAULT_MODE_NOTICE = (
    "Permission mode: default, since models.yaml names no classifier for auto mode (auto_mode). "
    "To start in it anyway: --permission-mode auto"
)
_FALSE = ("", "0", "false", "no", "off")


def claude_variables(
    route: ModelRoute,
    model: str,
    url: str,
    *,
    token: str | None,
    environ: Mapping[str, str],
    needs_virtual_key: bool = False,
) -> dict[str, str]:
    """Return the variables for Claude Code on `route`.

    Args:
        model: the name under which the route is requested.
        url: the daemon's address.
        token: the daemon's own access token, if it requires one.
        needs_virtual_key: the daemon asks for a virtual key, which is the user's ``ANTHROPIC_AUTH_TOKEN``.
        environ: the user's environment; a key in it is left alone where the upstream gets it, and an empty
            ``CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC`` as well.
    """
    found = {"ANTHROPIC_BASE_URL": url, **_no_proxy(url, environ)}
    if needs_virtual_key:
        pass
    elif token is not None:
        found["ANTHROPIC_AUTH_TOKEN"] = token
    elif not needs_client_key(route):
        found["ANTHROPIC_AUTH_TOKEN"] = "any"  # noqa: S105 - it must not be empty, and goes nowhere
    found["ANTHROPIC_MODEL"] = model
    for alias in _ALIASES:
        found[f"ANTHROPIC_DEFAULT_{alias}_MODEL"] = model
        found[f"ANTHROPIC_DEFAULT_{alias}_MODEL_NAME"] = model
        found[f"ANTHROPIC_DEFAULT_{alias}_MODEL_DESCRIPTION"] = describe(route)
    found["CLAUDE_CODE_SUBAGENT_MODEL"] = model
    found |= _window_variables(route, model)
    found["CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY"] = "1"
    found["CLAUDE_CODE_GATEWAY_HINT_HEADERS"] = "1"
    if not _is_anthropic(route) and environ.get(_ESSENTIAL_TRAFFIC) != "":
        found |= {_ESSENTIAL_TRAFFIC: "1", _NO_MARKETPLACE: "1"}
    if not route.direct:
        # The block names Claude Code's build: of no use to other models, and each update would spoil their caches.
        found["CLAUDE_CODE_ATTRIBUTION_HEADER"] = "0"
    return found


def client_classifier_variables(model: str) -> dict[str, str]:
    """Return the variables with which Claude Code checks the actions of auto mode itself, by calls of `model`.

    See docs/spec/hints-and-modes.md#auto-mode-server.
    """
    return {"CLAUDE_CODE_AUTO_MODE_SERVER": "0", "CLAUDE_CODE_AUTO_MODE_MODEL": model}


def auto_mode_of(route: ModelRoute, settings: Settings) -> str:
    """Return what checks the actions of auto mode on `route`; "" for nothing."""
    if _is_anthropic(route):
        return "Anthropic"
    return AutoMode.of(
        settings.auto_mode,
        settings.auto_mode_rules,
        route.auto_mode,
        route.auto_mode_rules,
        is_direct=route.direct,
    ).classifier


def _no_proxy(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that keep calls to the daemon away from a proxy of the environment."""
    hosts = dict.fromkeys((*_LOOPBACK, urlsplit(url).hostname or "localhost"))
    names = [name for name in ("NO_PROXY", "no_proxy") if environ.get(name)]
    known = [part.strip() for name in names for part in environ[name].split(",") if part.strip()]
    value = ",".join(dict.fromkeys((*known, *hosts)))
    return dict.fromkeys(["NO_PROXY", *(["no_proxy"] if "no_proxy" in names else [])], value)


def _window_variables(route: ModelRoute, model: str) -> dict[str, str]:
    """Return the variables under which Claude Code compacts where the route's window requires it.

    Claude Code compacts at its window less min(output, 20 000) + 13 000 tokens. That leaves nothing of a small window,
    so there the output is limited, and the window is announced with that buffer added.
    """
    window, output = window_of(route), route.max_tokens
    found: dict[str, str] = {}
    if _is_known(model):
        if window is not None and window < _LARGE_WINDOW:
            if window <= _STANDARD_WINDOW:
                found["CLAUDE_CODE_DISABLE_1M_CONTEXT"] = "1"
            found["CLAUDE_CODE_AUTO_COMPACT_WINDOW"] = str(max(window, _MIN_COMPACT_WINDOW))
    else:
        if window is None or window < _LARGE_WINDOW:
            found["CLAUDE_CODE_DISABLE_1M_CONTEXT"] = "1"
        if window is not None:
            announced = window
            if window < _MIN_COMPACT_WINDOW:
                announced += _BUFFER_TOKENS - window // _MARGIN_PART
            found["CLAUDE_CODE_MAX_CONTEXT_TOKENS"] = str(announced)
    if window is not None and window < _MIN_COMPACT_WINDOW:
        output = min(output or _DEFAULT_OUTPUT, window // _OUTPUT_PART)
    if output is not None:
        found["CLAUDE_CODE_MAX_OUTPUT_TOKENS"] = str(output)
    return found


def _is_known(model: str) -> bool:
    """Return whether Claude Code knows the model, and its window, by its id."""
    return model.startswith("claude-")


def diverting_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that would lead Claude Code past the proxy."""
    return _switched_on(DIVERTING_VARIABLES, environ)


def telemetry_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the names of the variables that make Claude Code report to a collector."""
    return _switched_on(TELEMETRY_VARIABLES, environ)


def _switched_on(names: Sequence[str], environ: Mapping[str, str]) -> list[str]:
    return [name for name in names if environ.get(name, "").lower() not in _FALSE]


def needs_client_key(route: ModelRoute) -> bool:
    """Return whether the upstream gets the key that Claude Code sends."""
    return not (route.is_demo or route.has_own_key or route.missing_key or is_loopback_url(route.api_base))


def missing_key_message(
    route: ModelRoute,
    variables: Mapping[str, str],
    environ: Mapping[str, str],
    settings: Sequence[Mapping[str, Any]] = (),
    *,
    needs_virtual_key: bool = False,
) -> str:
    """Return what to set if the upstream needs the client's key and Claude Code would have none; else "".

    A login of claude.ai counts as a key for Anthropic's own API only.
    """
    places = [variables, environ, *(each["env"] for each in settings if isinstance(each.get("env"), dict))]
    has_key = any(place.get(name) for place in places for name in _KEYS)
    if needs_virtual_key and not has_key and not any(each.get("apiKeyHelper") for each in settings):
        made_by = "'claude-proxy keys add NAME' makes one"
        return f"ANTHROPIC_AUTH_TOKEN must be your key of this proxy; it is not set ({made_by})"
    if has_key or _is_anthropic(route) or any(each.get("apiKeyHelper") for each in settings):
        return ""
    return f"ANTHROPIC_AUTH_TOKEN must be your key for {route.api_base}; it is not set"


def _is_anthropic(route: ModelRoute) -> bool:
    host = urlsplit(route.api_base).hostname or ""
    return host == "anthropic.com" or host.endswith(".anthropic.com")


def read_user_settings(environ: Mapping[str, str], folder: Path) -> list[dict[str, Any]]:
    """Return the settings files that Claude Code reads in `folder`; unreadable ones are its own to report."""
    home = Path(environ.get("CLAUDE_CONFIG_DIR") or Path(environ.get("HOME") or "~").expanduser() / ".claude")
    managed = (
        Path("/Library/Application Support/ClaudeCode")
        if sys.platform == "darwin"
        else Path("/etc/claude-code")
    )
    files = (
        managed / "managed-settings.json",
        folder / ".claude" / "settings.local.json",
        folder / ".claude" / "settings.json",
        home / "settings.json",
    )
    return [found for path in files if (found := _settings_in(path)) is not None]


def _settings_in(path: Path) -> dict[str, Any] | None:
    try:
        return _settings_from(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _settings_from(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def claude_arguments(
    routes: Sequence[ModelRoute],
    route: ModelRoute,
    model: str,
    arguments: Sequence[str],
    settings: Sequence[Mapping[str, Any]],
    *,
    is_checked: bool = False,
) -> tuple[list[str], str]:
    """Return the arguments to put before the user's own, and a notice for stderr or "".

    ``--settings`` gives the model picker the entries of models.yaml with their windows, chooses the default permission
    mode if nothing else names one, and keeps WebFetch from asking Anthropic about each host. If the user passes
    ``--settings``, only the mode is set.

    Args:
        routes: all entries of models.yaml.
        settings: the user's settings files.
        is_checked: the actions of auto mode are checked, so Claude Code may start in it.
    """
    own = _option(arguments, "--settings")
    if own is not None:
        given = _settings_from(own) if own.lstrip().startswith("{") else _settings_in(Path(own))
        settings = [given or {}, *settings]
    sets_mode = not is_checked and not _is_anthropic(route) and not _names_mode(arguments, settings)
    if own is not None:
        return (["--permission-mode", "default"], DEFAULT_MODE_NOTICE) if sets_mode else ([], "")
    added: dict[str, Any] = {}
    if sets_mode:
        added["permissions"] = {"defaultMode": "default"}
        added["companyAnnouncements"] = [DEFAULT_MODE_NOTICE]  # it clears what was on the terminal before
    if not _is_anthropic(route) and not any("skipWebFetchPreflight" in each for each in settings):
        added["skipWebFetchPreflight"] = True
    if not any("modelPicker" in each for each in settings):
        added["modelPicker"] = {
            "replaceBuiltInOptions": True,
            "options": _picker_options(routes, route, model),
        }
    windows = {
        each.model_id: {"autoCompactWindow": window}
        for each in routes
        if not each.is_demo and _MIN_COMPACT_WINDOW <= (window := window_of(each) or 0) < _LARGE_WINDOW
    }
    if windows:
        added["modelSettings"] = windows
    return (["--settings", json.dumps(added, separators=(",", ":"))] if added else []), ""


def _option(arguments: Sequence[str], name: str) -> str | None:
    for index, argument in enumerate(arguments):
        if argument == "--":
            return None
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
        if argument == name:
            return arguments[index + 1] if index + 1 < len(arguments) else ""
    return None


def _names_mode(arguments: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> bool:
    if _option(arguments, "--permission-mode") is not None or "--dangerously-skip-permissions" in arguments:
        return True
    permissions = [each.get("permissions") for each in settings]
    return any(isinstance(each, dict) and each.get("defaultMode") for each in permissions)


def _picker_options(routes: Sequence[ModelRoute], route: ModelRoute, model: str) -> list[dict[str, str]]:
    named = [(model, route), *((each.model_id, each) for each in routes if each.model_id != model)]
    return [{"model": name, "label": name, "description": describe(each)} for name, each in named]
