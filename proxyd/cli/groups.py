"""A group of commands that says what to write instead of a mistyped one."""

from __future__ import annotations

from collections.abc import Mapping

import click

__all__ = ["CommandGroup"]


class CommandGroup(click.Group):
    """`click.Group` with hints.

    Attributes:
        synonyms: other programs' names of our commands -> what to write behind the group's name.
    """

    synonyms: Mapping[str, str] = {}

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            raise click.UsageError(f"there is no command {args[0][:40]!r}; {self._hint(ctx, args[0])}", ctx)
        return super().resolve_command(ctx, args)

    def _hint(self, ctx: click.Context, word: str) -> str:
        import difflib

        word = word.lower()
        if word in self.synonyms:
            meant = [self.synonyms[word]]
        else:
            meant = sorted(difflib.get_close_matches(word, self.list_commands(ctx), n=2, cutoff=0.7))
        if not meant:
            return f"write '{ctx.command_path} --help' for a list"
        return "write " + " or ".join(f"'{ctx.command_path} {name}'" for name in meant)
