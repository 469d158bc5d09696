"""Remove tools from requests, disabled by the ``_`` in its name: tools that the model shall not have.

It is switched on by ``mv _filter_tools.py filter_tools.py`` in the hooks folder. Few models handle notebooks well.
models.yaml selects other names, without changes to this file::

    settings:
      hook_options:
        filter_tools:
          tools: [WebSearch, WebFetch]
"""

DEFAULT_TOOLS = ("WebSearch", "NotebookEdit", "NotebookRead")


def request_hook(payload, ctx):
    """Drop the unwanted tools, and a choice of one of them."""
    unwanted = set(ctx.options.get("tools", DEFAULT_TOOLS))
    tools = payload.get("tools")
    if not isinstance(tools, list):
        return payload
    kept = [left for tool in tools if (left := without(tool, unwanted)) is not None]
    if kept == tools:
        return payload
    if kept:
        payload["tools"] = kept
    else:  # many upstreams refuse an empty list, and a choice without tools
        payload.pop("tools")
        payload.pop("parallel_tool_calls", None)
    if not kept or name_of(payload.get("tool_choice")) in unwanted:
        payload.pop("tool_choice", None)
    if not kept or unwanted.intersection(forced_by_gemini(payload)):
        payload.pop("toolConfig", None)
    return payload


def without(tool, unwanted):
    """Return a tool, or Gemini's list of functions without the unwanted ones; None if nothing is left."""
    if isinstance(tool, dict) and isinstance(tool.get("functionDeclarations"), list):
        kept = [each for each in tool["functionDeclarations"] if name_of(each) not in unwanted]
        return {**tool, "functionDeclarations": kept} if kept else None
    return None if name_of(tool) in unwanted else tool


def forced_by_gemini(payload):
    """Return the names of the functions that must be called."""
    config = (payload.get("toolConfig") or {}).get("functionCallingConfig") or {}
    return config.get("allowedFunctionNames") or ()


def name_of(tool):
    """Return the name from ``{"name": …}`` (Anthropic) or ``{"function": {"name": …}}`` (OpenAI), or None."""
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    return function.get("name") if isinstance(function, dict) else tool.get("name")
