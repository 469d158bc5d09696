"""An example, disabled by the ``_`` in its name: append a text to the system prompt of every call.

::

    settings:
      hook_options:
        system_prompt:
          text: Answer in French.

It is appended because upstreams cache the beginning of a prompt.
"""


def request_hook(payload, ctx):
    """Append the configured text, in the shape of the payload."""
    text = ctx.options.get("text")
    if text and "contents" in payload:  # Gemini's own API
        parts = payload.setdefault("systemInstruction", {"parts": []})["parts"]
        parts.append({"text": text})
    elif text and "input" in payload:  # OpenAI Responses
        items, part = payload["input"], {"type": "input_text", "text": text}
        if items and items[0].get("role") in ("system", "developer"):
            items[0]["content"].append(part)
        else:
            items.insert(0, {"type": "message", "role": "developer", "content": [part]})
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
