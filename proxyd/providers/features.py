"""Which features of Claude Code an entry of models.yaml has, who serves each of them, and what to set for the others.

It is what the configuration says: of a translated entry by its profile and format, of a direct one hardly more than
that its upstream gets the request. `claude-proxy features` and docs/features.md show it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from proxyd.codecs.formats import CHAT
from proxyd.codecs.translation.dialect import Dialect
from proxyd.config.auto_mode import AutoMode
from proxyd.config.images import Images
from proxyd.config.route_description import window_of
from proxyd.config.routes import ModelRoute
from proxyd.config.settings import Settings
from proxyd.config.web_search import UPSTREAM, WebSearch
from proxyd.providers.registry import Profile, dialect_for, format_for, profile_for, sees_images
from proxyd.providers.upstream_search import can_search
from proxyd.urls import is_private_host

__all__ = ["BY_US", "FEATURES", "NATIVE", "NO", "PASSED_ON", "Feature", "features_of"]

#: Who serves a feature: the upstream, with its own means; the proxy; nobody; or the upstream, if it can.
NATIVE, BY_US, NO, PASSED_ON = "natively", "by claude-proxy", "not", "if the upstream can"


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of an entry.

    Attributes:
        served: one of `NATIVE`, `BY_US`, `NO`, `PASSED_ON`.
        how: in which way.
        remedy: what to set in models.yaml for more of it; "" for nothing.
    """

    name: str
    served: str
    how: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class _Entry:
    """An entry, and what was found out about it once."""

    route: ModelRoute
    settings: Settings
    profile: Profile
    dialect: Dialect
    reads_pdfs: bool

    @property
    def is_anthropic(self) -> bool:
        return self.route.direct and profile_for(self.route.api_base, None).name == "anthropic"


def features_of(route: ModelRoute, settings: Settings, *, reads_pdfs: bool = False) -> list[Feature]:
    """Return all features of an entry, in the order of `FEATURES`.

    Args:
        route: with the quirks that were learned, where they are to count.
        reads_pdfs: the libraries that read PDFs are installed.
    """
    profile = profile_for(route.api_base, route.provider)
    dialect = dialect_for(profile, route.model_name, route.quirks, format_for(route)[0])
    entry = _Entry(route, settings, profile, dialect, reads_pdfs)
    return [Feature(name, *find(entry)) for name, find in FEATURES.items()]


_Found = tuple[str, str, str]


def _passed_on(entry: _Entry, what: str, member: str = "") -> _Found:
    """Describe what a direct entry does with a feature that is a `member` of requests."""
    if member and member in (*entry.profile.omit, *entry.route.omit):
        return NO, f"the field {member} is left out, since the upstream does not take it", ""
    return (NATIVE if entry.is_anthropic else PASSED_ON), what, ""


def _streaming(entry: _Entry) -> _Found:
    if entry.route.direct:
        return NATIVE, "bytes pass through", ""
    if entry.route.can_stream and entry.dialect.stream:
        return NATIVE, "each event is rewritten as it arrives", ""
    remedy = "" if entry.route.can_stream else "can_stream: true, if the upstream streams"
    return BY_US, "the response is fetched as a whole, then sent as a stream", remedy


def _tools(entry: _Entry) -> _Found:
    if entry.route.direct:
        return _passed_on(entry, "tools and results are passed on")
    limit = "" if entry.dialect.max_tools is None else f", at most {entry.dialect.max_tools}"
    how = f"as function calls{limit}"
    if format_for(entry.route)[0] is not CHAT:
        return NATIVE, how, ""
    written = entry.dialect.text_tool_calls
    if written == "always" or (written == "local" and is_private_host(entry.route.api_base)):
        return NATIVE, f"{how}; calls that the model writes as text are run, too", ""
    return (
        NATIVE,
        how,
        "quirks: {text_tool_calls: always}, if the model writes calls as text",
    )


def _parallel_tools(entry: _Entry) -> _Found:
    if entry.route.direct:
        return _passed_on(entry, "several calls of one response are passed on")
    if entry.dialect.one_call_per_message:
        return BY_US, "several calls go back as one message for each, followed by its result", ""
    if not entry.dialect.parallel_tool_calls:
        return NATIVE, "as the model likes: a request for one call at a time is not passed on", ""
    return NATIVE, "several calls of one response, and one at a time where that is asked for", ""


def _thinking(entry: _Entry) -> _Found:
    if entry.route.direct:
        return _passed_on(entry, "thinking, efforts and signatures are passed on", "thinking")
    dialect = entry.dialect
    paths = [path for path in (dialect.thinking_path, dialect.effort_path, dialect.budget_path) if path]
    if paths and (dialect.client_effort or entry.route.reasoning_effort is not None):
        return NATIVE, f"asked for by {', '.join(paths)}", ""
    if paths:
        return NO, "not asked for; what the model thinks by itself is shown", "reasoning_effort: high"
    if dialect.think_tags:
        how = f"cannot be asked for; text in <{dialect.think_tags[0]}> tags becomes thinking"
        return BY_US, how, ""
    return NO, "cannot be asked for; what the model thinks by itself is shown", ""


def _images(entry: _Entry) -> _Found:
    if entry.route.direct:
        return _passed_on(entry, "images are passed on")
    if sees_images(entry.route):
        how = (
            "within results of tools, too"
            if entry.dialect.images_in_tool_results
            else ("those of results of tools follow in a message of the user")
        )
        return NATIVE, how, ""
    if describer := _describer_of(entry):
        return BY_US, f"described once each by {describer}", ""
    remedy = "images: {describe_with: MODEL_ID}, if it sees none; else vision: true"
    return NO, "the model gets a line of text in their place", remedy


def _describer_of(entry: _Entry) -> str:
    return Images.of(entry.settings.images, entry.route.images).describe_with


def _pdfs(entry: _Entry) -> _Found:
    if entry.route.direct:
        return _passed_on(entry, "documents are passed on")
    if entry.dialect.files:
        return NATIVE, "as files", ""
    remedy = "quirks: {files: true}, if the upstream takes files"
    if not entry.reads_pdfs:
        how = "the model gets a line of text in their place, and the advice to run pdftotext"
        return NO, how, f"{remedy}; or pip install 'claude-proxyd[pdf]'"
    if sees_images(entry.route):
        return BY_US, "as text and image of each page", remedy
    if describer := _describer_of(entry):
        return BY_US, f"as the text of their pages; those without text are described by {describer}", remedy
    return (
        BY_US,
        "as the text of their pages; those without text are left out",
        "images: {describe_with: MODEL_ID}, if pages without text are to be described",
    )


def _web_search(entry: _Entry) -> _Found:
    route, settings = entry.route, entry.settings
    config = WebSearch.of(
        settings.web_search,
        settings.web_search_key,
        route.web_search,
        route.web_search_key,
        is_direct=route.direct,
    )
    if config is None:
        served, how, _ = _passed_on(entry, "WebSearch is passed on")
        remedy = "web_search: {engine: searxng, url: ADDRESS}, if it cannot; in the entry itself"
        return served, how, "" if entry.is_anthropic else remedy
    if not config.engine:
        remedy = "web_search: {engine: searxng, url: ADDRESS}, if you have one; other engines need an api_key"
        if can_search(route):
            remedy = "web_search: {engine: upstream}, if it is to search itself; there are other engines"
        return NO, "WebSearch is answered that there is none", remedy
    if config.engine == UPSTREAM:
        if can_search(route):
            return NATIVE, "WebSearch is answered by the upstream's own search", ""
        remedy = "web_search: {engine: searxng, url: ADDRESS}"
        return NO, "the upstream is not known to search", remedy
    if config.missing_key is not None:
        return NO, f"{config.engine} has no key", config.missing_key
    return BY_US, f"WebSearch is answered by {config.engine}", ""


def _auto_mode(entry: _Entry) -> _Found:
    route, settings = entry.route, entry.settings
    mode = AutoMode.of(
        settings.auto_mode,
        settings.auto_mode_rules,
        route.auto_mode,
        route.auto_mode_rules,
        is_direct=route.direct,
    )
    if entry.is_anthropic:
        return NATIVE, "actions are checked by Anthropic", ""
    if mode.classifier:
        return BY_US, f"actions are checked by {mode.classifier}", ""
    remedy = "auto_mode: {classifier: MODEL_ID}"
    if route.direct:
        return (
            PASSED_ON,
            "the upstream's response is passed on",
            f"{remedy}, if it cannot; in the entry itself",
        )
    return NO, "nothing checks actions, and Claude Code says so", remedy


def _structured_outputs(entry: _Entry) -> _Found:
    if entry.route.direct:
        return _passed_on(entry, "the schema is passed on", "output_config")
    kind = entry.dialect.response_format
    if kind == "json_schema":
        return NATIVE, "as a JSON schema", ""
    mode = "its JSON mode is asked for, and " if kind == "json_object" else ""
    return BY_US, f"{mode}the schema is put into the instructions", ""


def _caching(entry: _Entry) -> _Found:
    if entry.route.direct:
        return _passed_on(entry, "breakpoints are passed on")
    if entry.dialect.cache_control:
        return NATIVE, "breakpoints are passed on", ""
    how = "no breakpoints; the prompt keeps its beginning from call to call"
    if entry.dialect.prompt_cache_key:
        return PASSED_ON, f"{how}, and the session is named as prompt_cache_key", ""
    return PASSED_ON, how, ""


def _window(entry: _Entry) -> _Found:
    window = window_of(entry.route)
    if window is not None:
        how = f"{window:,} tokens; claude-proxy code has Claude Code compact below it"
        return (NATIVE if entry.is_anthropic else BY_US), how, ""
    if entry.is_anthropic:
        return NATIVE, "Claude Code knows the windows of Anthropic's models", ""
    return PASSED_ON, "not known; Claude Code compacts after a refusal", "max_input_tokens: N"


def _context_edits(entry: _Entry) -> _Found:
    if entry.route.direct:
        return _passed_on(entry, "context_management is passed on", "context_management")
    if entry.settings.context_edits:
        return BY_US, "old results of tools and old thinking are cleared where a request asks for it", ""
    return NO, "context_management is left out", "context_edits: true under settings"


#: Name -> what finds it, in the order in which they are shown.
FEATURES: Mapping[str, Callable[[Any], _Found]] = {
    "streaming": _streaming,
    "tools": _tools,
    "parallel tools": _parallel_tools,
    "thinking": _thinking,
    "images": _images,
    "PDFs": _pdfs,
    "web search": _web_search,
    "auto mode": _auto_mode,
    "structured outputs": _structured_outputs,
    "caching": _caching,
    "window": _window,
    "context edits": _context_edits,
}
