"""An example, disabled by the ``_`` in its name: replace words in responses, also across chunk boundaries.

::

    settings:
      hook_options:
        redact:
          words: {Bluebird: "[project]", "555-0134": "[phone]"}

A stream may split a word, so the end of a delta that could begin a word is kept and sent with the next delta, or before
the end of its block. Only texts are changed: with other arguments a tool call would not do what the model intended.
"""

from proxyd.hooks.api import BlockStop, TextDelta


def response_hook(payload, ctx):
    """Replace words in a response that is not streamed."""
    if payload.get("type") == "message":
        words = ctx.options.get("words", {})
        for block in payload.get("content", []):
            if block.get("type") == "text":
                block["text"] = replace_words(block["text"], words)
    return payload


def stream_event_hook(event, ctx):
    """Replace words in a stream, keeping back the start of a possible word."""
    words = ctx.options.get("words", {})
    match event:
        case TextDelta(index, text):
            text = replace_words(ctx.state.pop("held", "") + text, words)
            length = len(text) - longest_prefix(text, words)
            ctx.state["held"] = text[length:]
            return TextDelta(index, text[:length]) if length else None
        case BlockStop(index) if ctx.state.get("held"):
            return [TextDelta(index, ctx.state.pop("held")), event]
    return event


def replace_words(text, words):
    """Return `text` with each word replaced."""
    for word, replacement in words.items():
        text = text.replace(word, replacement)
    return text


def longest_prefix(text, words):
    """Return how many characters at the end of `text` may be the beginning of a word."""
    return max(
        (size for word in words for size in range(1, len(word)) if text.endswith(word[:size])), default=0
    )
