"""An example, switched off by the ``_`` in its name: replaces words of answers, also when they come in pieces.

::

    settings:
      hook_options:
        redact:
          words: {Bluebird: "[project]", "555-0134": "[phone]"}

A stream cuts texts anywhere, so the end of a piece is held back as long as it could be the beginning of a word, and is
sent with the next piece, or before its block ends. Texts only: the arguments of tool calls are left alone, since a
changed path or command would no longer do what the model meant.
"""

from proxyd.hooks.api import BlockStop, TextDelta


def response_hook(payload, ctx):
    """A whole answer; the events of a stream are left to the function below."""
    if payload.get("type") == "message":
        words = ctx.options.get("words", {})
        for block in payload.get("content", []):
            if block.get("type") == "text":
                block["text"] = replaced(block["text"], words)
    return payload


def stream_event_hook(event, ctx):
    """One event: texts go on as far as they are certain."""
    words = ctx.options.get("words", {})
    match event:
        case TextDelta(index, text):
            text = replaced(ctx.state.pop("held", "") + text, words)
            certain = len(text) - longest_beginning(text, words)
            ctx.state["held"] = text[certain:]
            return TextDelta(index, text[:certain]) if certain else None
        case BlockStop(index) if ctx.state.get("held"):
            return [TextDelta(index, ctx.state.pop("held")), event]
    return event


def replaced(text, words):
    """`text` with each word replaced."""
    for word, instead in words.items():
        text = text.replace(word, instead)
    return text


def longest_beginning(text, words):
    """How many characters at the end of `text` may be the beginning of a word."""
    return max(
        (size for word in words for size in range(1, len(word)) if text.endswith(word[:size])), default=0
    )
