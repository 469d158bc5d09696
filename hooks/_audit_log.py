"""An example, disabled by the ``_`` in its name: append a line to a file for each request and each response.

::

    settings:
      hook_options:
        audit_log:
          path: ~/claude-audit.jsonl

It writes names and sizes, no texts. Hooks run in their own thread, so that writing a file delays no stream.
"""

import json
import os
import time

from proxyd.hooks.api import BlockStart, ErrorEvent, MessageDelta


def request_hook(payload, ctx):
    """Log the request."""
    write(
        ctx,
        what="request",
        model=payload.get("model"),
        messages=len(payload.get("messages", ())),
        tools=len(payload.get("tools", ())),
    )
    return payload


def response_hook(payload, ctx):
    """Log a response that is not streamed."""
    if payload.get("type") == "message":
        tools = [block.get("name") for block in payload.get("content", ()) if block.get("type") == "tool_use"]
        write(ctx, what="answer", stop_reason=payload.get("stop_reason"), tools=tools)
    return payload


def stream_event_hook(event, ctx):
    """Log a streamed response at its end."""
    match event:
        case BlockStart(_, {"type": "tool_use", "name": name}):
            ctx.state.setdefault("tools", []).append(name)
        case MessageDelta(delta, _):
            tools = ctx.state.get("tools", [])
            write(ctx, what="answer", stop_reason=delta.get("stop_reason"), tools=tools)
        case ErrorEvent(body):
            write(ctx, what="failed", error=body["error"]["type"])
    return event


def write(ctx, **fields):
    """Append one line."""
    line = {"at": round(time.time(), 3), "request_id": ctx.request_id, "route": ctx.route, **fields}
    path = os.path.expanduser(ctx.options.get("path", "~/claude-audit.jsonl"))
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
