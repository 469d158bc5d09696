"""How one OpenAI-compatible server differs from the others: the switches that the codecs read.

The switches are data; which vendor sets which one stands in ``proxyd/providers/quirks.py``, with its source. Every
field can be overridden per entry of models.yaml under ``quirks:``.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Dialect"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """The differences that matter for translation. The defaults are the ``generic`` server."""

    # -- request
    #: Name of the output limit: ``max_tokens`` or ``max_completion_tokens``.
    max_tokens_field: str = "max_tokens"
    #: Role of instructions: ``system`` or ``developer``.
    system_role: str = "system"
    #: Whether ``stream_options: {include_usage: true}`` is understood.
    stream_options: bool = True
    #: Whether images are understood; else they become a line of text.
    vision: bool = True

    # -- reasoning
    #: Field of the assistant message in which reasoning goes back (protocol.md 3.5), or None to send none.
    reasoning_field: str | None = None

    # -- stream
    #: Inline reasoning: the tag names whose content is thinking when the content starts with one of them.
    think_tags: tuple[str, ...] = ()
    #: The template writes the opening tag into the prompt: content is thinking up to a bare closing tag.
    think_tag_is_implied: bool = False
    #: Tags may come again after text (MiniMax native).
    think_tags_repeat: bool = False
