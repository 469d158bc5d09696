"""What ``claude-proxy add`` asks on a terminal: the vendor and the models; the key is in `add_key`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import click

from proxyd.cli.exit_codes import CommandFailed
from proxyd.config.routes import Pricing
from proxyd.onboarding.entries import short_count
from proxyd.onboarding.fetching import with_remedy
from proxyd.onboarding.model_list import ListedModel
from proxyd.onboarding.vendors import NEEDS_ADDRESS, VENDORS, Vendor
from proxyd.urls import host_of

if TYPE_CHECKING:
    from proxyd.onboarding.local_servers import LocalServer

__all__ = ["ask_for_models", "ask_for_vendor", "models_named", "show_models"]

#: Longer lists are searched instead of shown whole.
_MAX_ROWS = 40


def ask_for_vendor(servers: Sequence[LocalServer]) -> Vendor | LocalServer | str:
    """Return the choice: a vendor, a server that runs here, or an address."""
    options: list[Vendor | LocalServer] = [*servers, *VENDORS, *NEEDS_ADDRESS]
    if servers:
        click.echo("Running on this machine:")
        for number, server in enumerate(servers, 1):
            models = "1 model" if len(server.models) == 1 else f"{len(server.models)} models"
            click.echo(f"  {number:2}  {server.title} at {host_of(server.origin)}, {models}")
    click.echo("Vendors:")
    for number, vendor in enumerate((*VENDORS, *NEEDS_ADDRESS), len(servers) + 1):
        where = host_of(vendor.api_base) if vendor.api_base else "your own address"
        click.echo(f"  {number:2}  {vendor.name:12} {vendor.title} ({where})")
    while True:
        answer = click.prompt("Number, name or address (https://...)", prompt_suffix=": ").strip()
        if "://" in answer:
            return answer
        if answer.isdecimal() and 1 <= int(answer) <= len(options):
            return options[int(answer) - 1]
        for option in options:
            names = (
                (option.name, option.profile, *option.also)
                if isinstance(option, Vendor)
                else (option.profile,)
            )
            if answer.lower() in names:
                return option
        click.echo(f"  There is no {answer[:40]!r} in this list.")


def ask_for_models(models: Sequence[ListedModel]) -> list[ListedModel]:
    """Return the models that the user picks from the list."""
    shown = list(models)
    if len(shown) <= _MAX_ROWS:
        show_models(shown)
    else:
        click.echo(f"There are {len(shown)} models.")
    words = "Numbers or names (several with blanks between), or a part of a name to search"
    while True:
        answer = click.prompt(words, default="1" if len(shown) == 1 else None, prompt_suffix=": ").strip()
        picked = _picked(answer.replace(",", " ").split(), shown, models)
        if picked:
            return picked
        found = [
            model for model in models if all(word in model.name.lower() for word in answer.lower().split())
        ]
        if answer.isdecimal() and not found:
            click.echo(f"  There is no number {answer[:40]} in this list.")
            continue
        if not found:
            click.echo(f"  No model has {answer[:40]!r} in its name.")
            continue
        shown = found[:_MAX_ROWS]
        show_models(shown)
        if len(found) > len(shown):
            click.echo(f"  and {len(found) - len(shown)} more; add a word to find fewer")


def models_named(names: Collection[str], models: Sequence[ListedModel] | None) -> list[ListedModel]:
    """Return the models of these names; with a warning where the list does not have one.

    Args:
        models: the list; None if the upstream gives none.
    """
    by_name = {model.name.lower(): model for model in models or ()}
    found = []
    for name in dict.fromkeys(names):
        model = by_name.get(name.lower())
        if model is None and models is not None:
            click.echo(f"warning: {name} is not in the upstream's list of models", err=True)
        found.append(model or ListedModel(name))
    return found


def show_models(models: Sequence[ListedModel]) -> None:
    """Print a numbered table."""
    from proxyd.cli.commands.check import show_columns

    rows = [["", "MODEL", "WINDOW", "OUTPUT", "USD PER MILLION", "ABILITIES"]]
    for number, model in enumerate(models, 1):
        window = short_count(model.max_input_tokens)
        if model.max_input_tokens is None and model.largest_window is not None:
            window = f"up to {short_count(model.largest_window)}"
        rows.append(
            [
                f"{number:3}",
                model.name,
                window,
                short_count(model.max_tokens),
                _prices(model.pricing),
                model.abilities,
            ]
        )
    show_columns(rows)


def no_list(message: str, code: int) -> CommandFailed:
    """Return the failure of a command that cannot ask for the name of a model."""
    return CommandFailed(with_remedy(message, "name the model with --model"), code)


def _picked(
    words: Sequence[str], shown: Sequence[ListedModel], models: Sequence[ListedModel]
) -> list[ListedModel]:
    """Return the models of these numbers and names, or nothing if one of them is neither."""
    by_name = {model.name.lower(): model for model in models}
    picked: list[ListedModel] = []
    for word in words:
        if word.isdecimal() and 1 <= int(word) <= len(shown):
            model = shown[int(word) - 1]
        elif word.lower() in by_name:
            model = by_name[word.lower()]
        else:
            return []
        if model not in picked:
            picked.append(model)
    return picked


def _prices(pricing: Pricing | None) -> str:
    if pricing is None:
        return "-"
    return f"{pricing.input:g} in, {pricing.output:g} out"
