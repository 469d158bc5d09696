"""Decide what ``claude-proxy add`` adds models of: a known vendor, a server on this machine, or an address."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import click

from proxyd.cli.add_dialog import ask_for_vendor
from proxyd.cli.exit_codes import EXIT_UPSTREAM, EXIT_USAGE, CommandFailed
from proxyd.config.keys import ENTRY_KEYS
from proxyd.onboarding.blocking import inspected_server, local_servers
from proxyd.onboarding.entries import Target
from proxyd.onboarding.local_servers import LocalServer
from proxyd.onboarding.vendors import LOCAL_SERVERS, NEEDS_ADDRESS, VENDORS, Vendor, find_vendor
from proxyd.providers.registry import profile_for
from proxyd.urls import host_of, is_private_host

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
                _target_of(choice)
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
        return _target_of(server)
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
        address = click.prompt(f"Address of your {vendor.title} (https://...)", prompt_suffix=": ").strip()
    base = vendor.api_base if address is None else _valid_address(address)
    url = _models_url(vendor, base)
    direct = vendor.direct if address is None else request.direct
    profile = request.provider or vendor.profile
    return Target(
        vendor.name,
        vendor.title,
        profile,
        base,
        url,
        vendor.key_env,
        direct,
        _format_at(vendor, base, direct=direct),
        access_token=vendor.access_token,
    )


def _models_url(vendor: Vendor | None, base: str) -> str:
    if vendor is not None and vendor.access_token:
        return ""
    return vendor.models_url if vendor is not None and base == vendor.api_base else f"{base}/models"


def _format_at(vendor: Vendor | None, base: str, *, direct: bool) -> str | None:
    """Return the format of an entry at this address: the vendor's, where the address is."""
    if vendor is None or direct or base.endswith("/openapi"):
        return None
    return vendor.format if vendor.api_base in ("", base) else None


def _address_target(request: AddRequest, name: str | None, address: str, ca_file: str) -> Target:

    base = _valid_address(address)
    parts = urlsplit(base)
    profile = profile_for(base, request.provider).name
    if is_private_host(base) and request.provider is None:
        server = inspected_server(f"{parts.scheme}://{parts.netloc}", ca_file)
        if server is not None:
            found = _target_of(server)
            return replace(found, api_base=base if parts.path else found.api_base, direct=request.direct)
    vendor = next((each for each in (*VENDORS, *NEEDS_ADDRESS) if each.profile == profile), None)
    host = (parts.hostname or "upstream").removeprefix("api.")
    label = name or host.split(".")[0]
    if vendor is not None:
        key_env = vendor.key_env
    else:
        key_env = "" if is_private_host(base) else f"{_variable(label)}_API_KEY"
    url = _models_url(vendor, base)
    if request.direct and url == f"{base}/models":
        url = f"{base}/v1/models"
    title = vendor.title if vendor is not None else host_of(base)
    direct = request.direct or (vendor is not None and vendor.direct and base == vendor.api_base)
    return Target(
        vendor.name if vendor else label,
        title,
        profile,
        base,
        url,
        key_env,
        direct,
        _format_at(vendor, base, direct=direct),
        access_token=vendor.access_token if vendor else "",
    )


def _variable(label: str) -> str:
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in label).upper()
    return f"UPSTREAM_{name}" if not name or name[0].isdigit() else name


def _valid_address(address: str) -> str:
    faults: list[str] = []
    value = ENTRY_KEYS["api_base"].kind.read(address.strip(), lambda _path, text, _key: faults.append(text))
    if value is None or faults:
        raise CommandFailed(f"--api-base: {'; '.join(faults)}", EXIT_USAGE)
    return str(value)


def _target_of(server: LocalServer) -> Target:

    return Target(server.profile, server.title, server.profile, server.api_base, "", "", models=server.models)
