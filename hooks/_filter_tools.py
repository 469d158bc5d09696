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
    kept = [tool for tool in tools if name_of(tool) not in unwanted]
    if len(kept) == len(tools):
        return payload
    if kept:
        payload["tools"] = kept
    else:  # many upstreams refuse an empty list, and a choice without tools
        payload.pop("tools")
        payload.pop("parallel_tool_calls", None)
    if not kept or name_of(payload.get("tool_choice")) in unwanted:
        payload.pop("tool_choice", None)
    return payload


def name_of(tool):
    """Return the name from ``{"name": …}`` (Anthropic) or ``{"function": {"name": …}}`` (OpenAI), or None."""
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    return function.get("name") if isinstance(function, dict) else tool.get("name")
