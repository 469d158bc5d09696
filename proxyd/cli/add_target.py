"""Decide what ``claude-proxy add`` adds models of: a known vendor, a server on this machine, or an address."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import click

from proxyd.cli.add_dialog import ask_for_vendor
from proxyd.cli.exit_codes import EXIT_UPSTREAM, EXIT_USAGE, CommandFailed
from proxyd.onboarding.blocking import inspected_server, local_servers
from proxyd.onboarding.entries import Target
from proxyd.onboarding.local_servers import LocalServer
from proxyd.onboarding.targets import address_target, server_target, valid_address, vendor_target
from proxyd.onboarding.vendors import LOCAL_SERVERS, NEEDS_ADDRESS, VENDORS, find_vendor
from proxyd.urls import is_private_host, origin_of

__all__ = ["AddRequest", "find_target_of"]


@dataclass(frozen=True, slots=True)
class AddRequest:
    """What was given on the command line; what is missing is asked for on a terminal."""

    vendor: str | None = None
    api_base: str | None = None
    provider: str | None = None
    key_env: str | None = None
    names: tuple[str, ...] = ()
    model_id: str | None = None
    direct: bool = False
    tries: bool = True
    models: str | None = None


def find_target_of(request: AddRequest, ca_file: str) -> Target:
    name, address = request.vendor, request.api_base
    if name is not None and "://" in name:
        name, address = None, address or name
    if name is None and address is None:
        if not sys.stdin.isatty():
            raise CommandFailed(
                "name a vendor ('claude-proxy add kimi') or an address (--api-base URL); without a terminal none can "
                "be asked for",
                EXIT_USAGE,
            )
        choice = ask_for_vendor(local_servers(ca_file))
        if isinstance(choice, str):
            address = choice
        else:
            return (
                server_target(choice)
                if isinstance(choice, LocalServer)
                else _vendor_target(request, choice.name, None)
            )
    if name is not None and name.lower() in {kind.profile for kind in LOCAL_SERVERS} and address is None:
        server = next((each for each in local_servers(ca_file) if each.profile == name.lower()), None)
        if server is None:
            port = next(kind.port for kind in LOCAL_SERVERS if kind.profile == name.lower())
            raise CommandFailed(
                f"no {name} listens on 127.0.0.1:{port}; start it, or give its address with --api-base",
                EXIT_UPSTREAM,
            )
        return server_target(server)
    if name is not None and find_vendor(name) is not None:
        return _vendor_target(request, name, address)
    if address is None:
        raise CommandFailed(f"{name!r} is no vendor that is known; {_known_names()}", EXIT_USAGE)
    return _address_target(request, name, address, ca_file)


def _known_names() -> str:
    names = [each.name for each in (*VENDORS, *NEEDS_ADDRESS)] + [each.profile for each in LOCAL_SERVERS]
    return f"known are {', '.join(names)}; others by their address, --api-base URL"


def _vendor_target(request: AddRequest, name: str, address: str | None) -> Target:
    vendor = find_vendor(name)
    assert vendor is not None
    if address is None and not vendor.api_base:
        if not sys.stdin.isatty():
            raise CommandFailed(
                f"{vendor.title} has an address for each account; give yours with --api-base", EXIT_USAGE
            )
        address = click.prompt(f"Address of your {vendor.title} (https://...)", prompt_suffix=": ")
    base = None if address is None else _valid_address(address)
    return vendor_target(vendor, base, request.provider, direct=request.direct)


def _address_target(request: AddRequest, name: str | None, address: str, ca_file: str) -> Target:
    base = _valid_address(address)
    if is_private_host(base) and request.provider is None:
        server = inspected_server(origin_of(base), ca_file)
        if server is not None:
            return server_target(server, base, direct=request.direct)
    return address_target(base, name, request.provider, direct=request.direct)


def _valid_address(address: str) -> str:
    try:
        return valid_address(address)
    except ValueError as exc:
        raise CommandFailed(f"--api-base: {exc}", EXIT_USAGE) from None
