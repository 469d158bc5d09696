"""Translate tools and ``tool_choice`` (docs/spec/messages-to-chat.md#tools)."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from proxyd import jsonio
from proxyd.codecs.cache.tools import tool_list_for
from proxyd.codecs.translation.dialect import Dialect
from proxyd.codecs.translation.json_schema import fits_strict
from proxyd.codecs.translation.schema_styles import in_style
from proxyd.codecs.translation.translation_notes import Notes
from proxyd.errors import ClientError

__all__ = ["ToolShape", "Tools", "choose", "long_descriptions", "to_upstream_name", "to_upstream_tools"]

#: Claude Code sends this with deferred tools, so that the list is never empty; it must not be called.
PLACEHOLDER_TOOL = "DeferredToolPlaceholder"

_LEGAL = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")  # OpenAI's FunctionDefinition
_LEGAL_FROM_LETTER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")  # Kimi; Gemini takes an underscore as well
_ILLEGAL = re.compile(r"[^A-Za-z0-9_-]")

_ROLE = itemgetter("role")

#: Members of a tool that only Anthropic's servers understand.
_DROPPED_MEMBERS = ("strict", "eager_input_streaming", "input_examples", "allowed_callers")


@dataclass(frozen=True, slots=True)
class ToolShape:
    """The form of tools and of the choice of one in an upstream dialect.

    Args:
        name: of the dialect; translated tools are cached by it.
        tool: a function with ``name``, ``description``, ``parameters`` and perhaps ``strict`` -> the upstream's tool.
        name_of: the upstream's tool -> its name.
        choice: a name -> the ``tool_choice`` that demands this tool.
    """

    name: str
    tool: Callable[[dict[str, Any]], dict[str, Any]]
    name_of: Callable[[dict[str, Any]], str]
    choice: Callable[[str], dict[str, Any]]


@dataclass(slots=True)
class Tools:
    """The upstream's tools.

    Args:
        offered: tools in the upstream's form.
        names: upstream name -> the client's name, for the altered ones.
        left_out: names of tools that only Anthropic's servers can run, or whose schema is not in the request.
        written: `offered` as JSON, if it was serialised. Requests share that list: copy it before changing it.
    """

    offered: list[dict[str, Any]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    written: bytes | None = None


def to_upstream_name(name: Any, dialect: Dialect) -> str:
    """Return a name that the upstream takes: the same where legal, else the first 55 characters and a digest.

    Claude Code's ``mcp__server__tool`` names exceed OpenAI's 64 characters. A digest, not a counter, so that
    the name is the same in the history of every request.
    """
    if not isinstance(name, str) or not name:
        return "unknown_tool"
    return _legal_name(name, dialect.tool_names_start_with_letter)


@functools.lru_cache(maxsize=1024)  # the same few dozen, hundreds of times in each history
def _legal_name(name: str, starts_with_letter: bool) -> str:
    legal = _LEGAL_FROM_LETTER if starts_with_letter else _LEGAL
    if legal.match(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    readable = _ILLEGAL.sub("_", name[:55])
    if starts_with_letter and not legal.match(readable):
        readable = f"t{readable[:54]}"
    return f"{readable}_{digest}"


def to_upstream_tools(payload: dict[str, Any], dialect: Dialect, shape: ToolShape, notes: Notes) -> Tools:
    """Translate the request's tools, with those that system messages add or remove.

    Raises:
        ClientError: ``tools`` is not a list of tool definitions.
    """
    listed = payload.get("tools")
    if listed is not None and not isinstance(listed, list):
        raise ClientError(f"tools: expected an array, got {type(listed).__name__}; send a list of tools")
    added, removed = _tool_changes(payload["messages"])
    if added or removed:
        return _translate([*(listed or ()), *added], removed, dialect, shape, notes)
    if not listed:
        return Tools()

    def translate() -> tuple[Dialect, Tools, Notes]:
        own = Notes()
        tools = _translate(listed, removed, dialect, shape, own)
        try:
            tools.written = jsonio.dump_ascii(tools.offered)
        except jsonio.JSONError:
            pass  # NaN, which our parser accepts; reported when the whole body is serialised
        return dialect, tools, own

    # Dialects are not hashable. The entry holds a reference, so that its id is not reused.
    _, tools, own = tool_list_for(listed).cached(("tools", shape.name, id(dialect)), translate)
    notes.add_all(own)
    return tools


def _translate(
    listed: list[Any], removed: set[str], dialect: Dialect, shape: ToolShape, notes: Notes
) -> Tools:
    tools = Tools()
    seen = set()
    for number, tool in enumerate(listed):
        path = f"tools.{number}"
        if not isinstance(tool, dict):
            raise ClientError(
                f"{path}: expected an object, got {type(tool).__name__}; send a tool definition"
            )
        name = tool.get("name")
        if not _has_schema(tool):
            tools.left_out.append(str(name or tool.get("type")))
            notes.add(path, "dropped", "a tool of Anthropic's own, which the upstream cannot run or describe")
        elif not isinstance(name, str) or not name:
            raise ClientError(f"{path}.name: expected a non-empty string; name the tool")
        elif name == PLACEHOLDER_TOOL or name in removed:
            notes.add(path, "dropped", "not to be called")
        elif name in seen:
            notes.add(path, "dropped", "a second tool of one name")
        elif dialect.max_tools is not None and len(tools.offered) >= dialect.max_tools:
            notes.add(path, "dropped", f"the upstream takes at most {dialect.max_tools} tools")
        else:
            seen.add(name)
            upstream_name = to_upstream_name(name, dialect)
            if upstream_name != name:
                tools.names[upstream_name] = name
                notes.add(f"{path}.name", "shortened", "the upstream takes no such name")
            tools.offered.append(shape.tool(_function(tool, upstream_name, dialect)))
            for member in _DROPPED_MEMBERS:
                if member in tool:
                    notes.add(f"tools[].{member}", "dropped", "means nothing upstream")
    return tools


def _has_schema(tool: dict[str, Any]) -> bool:
    return tool.get("type") in (None, "custom") or isinstance(tool.get("input_schema"), dict)


def _function(tool: dict[str, Any], name: str, dialect: Dialect) -> dict[str, Any]:
    function: dict[str, Any] = {"name": name}
    description = tool.get("description")
    if isinstance(description, str) and description:
        function["description"] = description[: dialect.max_description]
    schema = tool.get("input_schema")
    if not isinstance(schema, dict):
        schema = {}
    parameters = dict(in_style(schema, dialect.schema_style))
    if parameters.get("type") != "object":
        parameters["type"] = "object"
    if not isinstance(parameters.get("properties"), dict):
        parameters["properties"] = {}
    function["parameters"] = parameters
    if dialect.schema_style == "strict" and fits_strict(parameters):
        function["strict"] = True
    return function


def long_descriptions(payload: dict[str, Any], dialect: Dialect) -> str:
    """Return the tools' descriptions that are longer than the upstream takes, as text for the system message."""
    limit, listed = dialect.max_description, payload.get("tools")
    if limit is None or not isinstance(listed, list):
        return ""
    texts = []
    for tool in listed:
        if isinstance(tool, dict) and _has_schema(tool):
            description = tool.get("description")
            if isinstance(description, str) and len(description) > limit:
                texts.append(f"# Tool {to_upstream_name(tool.get('name'), dialect)}\n\n{description}")
    return "\n\n".join(texts)


def _tool_changes(messages: list[Any]) -> tuple[list[Any], set[str]]:
    """Return tools defined in ``tool_addition`` blocks, and names whose last change was a removal."""
    added: dict[str, Any] = {}
    removed: set[str] = set()
    try:
        if "system" not in map(_ROLE, messages):  # the common case
            return [], set()
    except (TypeError, KeyError):
        return [], set()  # a malformed message, which the reader of the conversation reports
    for message in messages:
        if message["role"] != "system":
            continue
        content = message.get("content")
        for block in content if isinstance(content, list) else ():
            tool = block.get("tool") if isinstance(block, dict) else None
            if not isinstance(tool, dict):
                continue
            definition = tool.get("definition")
            name = definition.get("name") if isinstance(definition, dict) else tool.get("name")
            if not isinstance(name, str):
                continue
            if block.get("type") == "tool_addition":
                removed.discard(name)
                if isinstance(definition, dict):
                    added[name] = definition
            elif block.get("type") == "tool_removal":
                removed.add(name)
    return list(added.values()), removed


def choose(
    payload: dict[str, Any],
    tools: Tools,
    dialect: Dialect,
    shape: ToolShape,
    *,
    is_thinking: bool,
    notes: Notes,
) -> dict[str, Any]:
    """Return the body's fields ``tools``, ``tool_choice`` and ``parallel_tool_calls``, those that apply.

    Raises:
        ClientError: a tool call is demanded and no tool can be offered.
    """
    choice = payload.get("tool_choice")
    if choice is not None and not isinstance(choice, dict):
        seen = type(choice).__name__
        raise ClientError(
            f"tool_choice: expected an object with a type, got {seen}; send one or leave it out"
        )
    kind = choice.get("type") if choice else None
    if not tools.offered:
        if kind in ("any", "tool"):
            left_out = ", ".join(tools.left_out) or "the request offers none"
            raise ClientError(
                f"tool_choice: a tool call is demanded, but the upstream has no tool to call ({left_out}); "
                "drop tool_choice, or use a model that runs these tools itself"
            )
        if choice:
            notes.add("tool_choice", "dropped", "no tool is left to choose")
        return {}
    fields: dict[str, Any] = {"tools": tools.offered}
    if choice is None:
        return fields
    upstream_choice: Any = kind if kind in ("auto", "none") else None
    if kind in ("any", "tool"):
        upstream_choice, fields["tools"] = _forced_choice(
            choice, tools, dialect, shape, is_thinking=is_thinking, notes=notes
        )
    elif upstream_choice is None:
        raise ClientError("tool_choice.type: expected auto, any, tool or none; send one of these")
    fields["tool_choice"] = upstream_choice
    if choice.get("disable_parallel_tool_use") is True:
        if dialect.parallel_tool_calls:
            fields["parallel_tool_calls"] = False
        else:
            notes.add("tool_choice.disable_parallel_tool_use", "dropped", "the upstream has no such switch")
    return fields


def _forced_choice(
    choice: dict[str, Any],
    tools: Tools,
    dialect: Dialect,
    shape: ToolShape,
    *,
    is_thinking: bool,
    notes: Notes,
) -> tuple[str | dict[str, Any], list[dict[str, Any]]]:
    """Return ``tool_choice`` and the tools to offer for a choice of type ``any`` or ``tool``."""
    offered = tools.offered
    if is_thinking and not dialect.forced_choice_while_thinking:
        notes.add("tool_choice", "became auto", "the upstream refuses a forced tool while it thinks")
        return "auto", offered
    if choice["type"] == "tool":
        name = to_upstream_name(choice.get("name"), dialect)
        named = [tool for tool in offered if shape.name_of(tool) == name]
        if not named:
            notes.add("tool_choice", "became auto", "the named tool is not offered to the upstream")
            return "auto", offered
        if dialect.named_tool_choice:
            return shape.choice(name), offered
        # Else the model might call another tool, whose input the client would take for that of the named one.
        offered = named
        notes.add("tools", "reduced to the named one", "the upstream takes no named tool_choice")
    if dialect.required_word == "auto":
        notes.add("tool_choice", "became auto", "the upstream cannot be told to call some tool")
    return dialect.required_word, offered
