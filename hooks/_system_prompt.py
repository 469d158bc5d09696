"""An example, switched off by the ``_`` in its name: adds a text of yours to the system prompt of every call.

::

    settings:
      hook_options:
        system_prompt:
          text: Answer in French.

It goes behind what is there. The beginning of a prompt is what upstreams cache, so it had better stay the same.
"""


def request_hook(payload, ctx):
    """Append the configured text, in the shape that the payload has."""
    text = ctx.options.get("text")
    if not text or "messages" not in payload:
        return payload
    if ctx.mode == "direct":
        system = payload.get("system") or []
        if isinstance(system, str):
            system = [{"type": "text", "text": system}]
        payload["system"] = [*system, {"type": "text", "text": text}]
        return payload
    first = payload["messages"][0]
    if first.get("role") not in ("system", "developer"):
        payload["messages"].insert(0, {"role": "system", "content": text})
    elif isinstance(first["content"], str):
        first["content"] = f"{first['content']}\n\n{text}"
    else:
        first["content"].append({"type": "text", "text": text})
    return payload
