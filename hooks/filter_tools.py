"""Takes tools out of requests that the upstream could not serve, or that you do not want to be offered.

WebSearch runs on Anthropic's servers only; few models handle notebooks well. Other names are chosen in models.yaml,
and this file need not be changed::

    settings:
      hook_options:
        filter_tools:
          tools: [WebSearch, WebFetch]
"""

DEFAULT_TOOLS = ("WebSearch", "NotebookEdit", "NotebookRead")


def request_hook(payload, ctx):
    """Drop the unwanted tools, and the choice of one that is gone."""
    unwanted = set(ctx.options.get("tools", DEFAULT_TOOLS))
    tools = payload.get("tools")
    if not isinstance(tools, list):
        return payload
    kept = [tool for tool in tools if name_of(tool) not in unwanted]
    if len(kept) == len(tools):
        return payload
    if kept:
        payload["tools"] = kept
    else:  # an empty list is refused by many upstreams, and so is a choice among no tools
        payload.pop("tools")
        payload.pop("parallel_tool_calls", None)
    if not kept or name_of(payload.get("tool_choice")) in unwanted:
        payload.pop("tool_choice", None)
    return payload


def name_of(tool):
    """The name in ``{"name": …}`` (Anthropic) or ``{"function": {"name": …}}`` (OpenAI); None if there is none."""
    if not isinstance(tool, dict):
        return None
    function = tool.get("function")
    return function.get("name") if isinstance(function, dict) else tool.get("name")
