"""What models are added of: a known vendor, a server on this machine, or an address. No I/O."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import urlsplit

from proxyd.config.keys import ENTRY_KEYS
from proxyd.onboarding.entries import Target
from proxyd.onboarding.local_servers import LocalServer
from proxyd.onboarding.vendors import NEEDS_ADDRESS, VENDORS, Vendor
from proxyd.providers.registry import profile_for
from proxyd.urls import host_of, is_private_host

__all__ = ["address_target", "server_target", "valid_address", "vendor_target"]


def vendor_target(vendor: Vendor, base: str | None, provider: str | None, *, direct: bool) -> Target:
    """Return a known vendor.

    Args:
        base: an address of the account's own; None for the vendor's.
        direct: that address speaks the Anthropic API.
    """
    if base is None:
        base, direct = vendor.api_base, vendor.direct
    return Target(
        vendor.name,
        vendor.title,
        provider or vendor.profile,
        base,
        _models_url(vendor, base),
        vendor.key_env,
        direct,
        _format_at(vendor, base, direct=direct),
        access_token=vendor.access_token,
    )


def address_target(base: str, name: str | None, provider: str | None, *, direct: bool) -> Target:
    """Return the upstream at an address, as the vendor whose it is if that is known."""
    parts = urlsplit(base)
    profile = profile_for(base, provider).name
    vendor = next((each for each in (*VENDORS, *NEEDS_ADDRESS) if each.profile == profile), None)
    host = (parts.hostname or "upstream").removeprefix("api.")
    label = name or host.split(".")[0]
    if vendor is not None:
        key_env = vendor.key_env
    else:
        key_env = "" if is_private_host(base) else f"{_variable(label)}_API_KEY"
    url = _models_url(vendor, base)
    if direct and url == f"{base}/models":
        url = f"{base}/v1/models"
    title = vendor.title if vendor is not None else host_of(base)
    is_direct = direct or (vendor is not None and vendor.direct and base == vendor.api_base)
    return Target(
        vendor.name if vendor else label,
        title,
        profile,
        base,
        url,
        key_env,
        is_direct,
        _format_at(vendor, base, direct=is_direct),
        access_token=vendor.access_token if vendor else "",
    )


def server_target(server: LocalServer, base: str | None = None, *, direct: bool = False) -> Target:
    """Return a server that was found; with the path of `base`, where that has one."""
    address = base if base is not None and urlsplit(base).path else server.api_base
    found = Target(server.profile, server.title, server.profile, address, "", "", models=server.models)
    return replace(found, direct=direct)


def valid_address(text: str) -> str:
    """Return an address as an entry holds it.

    Raises:
        ValueError: it is none.
    """
    faults: list[str] = []
    value = ENTRY_KEYS["api_base"].kind.read(text.strip(), lambda _path, fault, _key: faults.append(fault))
    if value is None or faults:
        raise ValueError("; ".join(faults))
    return str(value)


def _models_url(vendor: Vendor | None, base: str) -> str:
    if vendor is not None and vendor.access_token:
        return ""
    return vendor.models_url if vendor is not None and base == vendor.api_base else f"{base}/models"


def _format_at(vendor: Vendor | None, base: str, *, direct: bool) -> str | None:
    """Return the format of an entry at this address: the vendor's, where the address is."""
    if vendor is None or direct or base.endswith("/openapi"):
        return None
    return vendor.format if vendor.api_base in ("", base) else None


def _variable(label: str) -> str:
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in label).upper()
    return f"UPSTREAM_{name}" if not name or name[0].isdigit() else name
