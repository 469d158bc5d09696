"""Entries of models.yaml over HTTP, for the page: list what can be added, add, remove.

All of it requires that an access token is set: an entry decides where prompts and keys go, so being on this machine is
not enough. Keys come pasted and go into the file ``env``; an entry never gets one that names a file or a variable of
the caller's choice.
"""

from __future__ import annotations

import asyncio
import datetime
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aiohttp import web

from proxyd.api.json_responses import json_response
from proxyd.api.request_body import read_request_body
from proxyd.errors import ClientError, ConfigError, Forbidden
from proxyd.prompt_cache.parser import parse_object
from proxyd.proxy.client_request import PREFIX
from proxyd.proxy.held_bodies import HeldBodies
from proxyd.proxy.relay import Relay

if TYPE_CHECKING:
    from proxyd.config.models import Checks
    from proxyd.onboarding.entries import Target
    from proxyd.onboarding.found_key import FoundKey
    from proxyd.onboarding.model_list import ListedModel

__all__ = ["add_entry_routes"]

_MAX_BODY_BYTES = 64 * 1024
_FIELDS = {"vendor", "api_base", "key", "model", "model_id", "direct"}


def add_entry_routes(
    app: web.Application, relay: Relay, bodies: HeldBodies, models: Path, checks: Checks
) -> None:
    """Register the endpoints, each with and without the prefix.

    Args:
        models: the models.yaml that the daemon reads.
    """
    handlers = _EntryHandlers(relay, bodies, models, checks)
    for prefix in ("", PREFIX):
        app.router.add_get(f"{prefix}/v1/entries/vendors", handlers.vendors)
        app.router.add_post(f"{prefix}/v1/entries/models", handlers.models)
        app.router.add_post(f"{prefix}/v1/entries", handlers.add)
        app.router.add_delete(f"{prefix}/v1/entries/{{model_id:.+}}", handlers.remove)


class _EntryHandlers:
    def __init__(self, relay: Relay, bodies: HeldBodies, models: Path, checks: Checks) -> None:
        self._relay = relay
        self._bodies = bodies
        self._path = models
        self._checks = checks
        self._is_free = asyncio.Lock()

    async def vendors(self, request: web.Request) -> web.Response:
        """``GET /v1/entries/vendors``: the known vendors, and the servers on this machine with their models."""
        self._require_token()
        from proxyd.onboarding.fetching import http_session
        from proxyd.onboarding.local_servers import find_local_servers
        from proxyd.onboarding.vendors import NEEDS_ADDRESS, VENDORS

        environ = await asyncio.to_thread(self._environ)
        in_keyring = {route.key_origin for route in self._relay.table.routes if route.api_key is not None}
        async with http_session(self._relay.settings.ca_file) as session:
            servers = await find_local_servers(session)
        vendors = [
            {
                "vendor": each.name,
                "title": each.title,
                "needs_address": not each.api_base,
                "key_env": each.key_env,
                "has_key": bool(environ.get(each.key_env, "").strip())
                or f"${{keyring:{each.key_env}}}" in in_keyring,
            }
            for each in (*VENDORS, *NEEDS_ADDRESS)
            if not each.access_token
        ]
        local = [{"title": each.title, "api_base": each.api_base} for each in servers]
        return json_response({"vendors": vendors, "local": local})

    async def models(self, request: web.Request) -> web.Response:
        """``POST /v1/entries/models``: what the upstream offers; ``vendor`` or ``api_base``, and ``key``."""
        body = await self._body(request)
        target, key = await self._target(body)
        found = await self._listed(target, key.value)
        return json_response(
            {
                "title": target.title,
                "models": [
                    {
                        "name": each.name,
                        "max_input_tokens": each.max_input_tokens,
                        "input_price": None if each.pricing is None else each.pricing.input,
                        "output_price": None if each.pricing is None else each.pricing.output,
                        "thinking": each.thinking,
                        "vision": each.vision,
                    }
                    for each in found
                ],
            }
        )

    async def add(self, request: web.Request) -> web.Response:
        """``POST /v1/entries``: write an entry for ``model``; the daemon reads the file by itself."""
        from proxyd.config.envfile import save_variable
        from proxyd.config.paths import make_private_folder
        from proxyd.onboarding.models_file import AlreadyThere, add_models, read_models_file, save_models_file

        body = await self._body(request)
        name, model_id = _text(body, "model"), _text(body, "model_id")
        if not name:
            raise ClientError("model: expected the upstream's name of a model")
        target, key = await self._target(body)
        listed = await self._listed(target, key.value)
        model = next((each for each in listed if each.name == name), None)
        if model is None:
            raise ClientError(f"model: {target.title} has no model {name[:200]!r}")

        def write() -> list[str]:
            environ = self._environ()
            text, config = read_models_file(self._path, environ, self._checks)
            routes = () if config is None else config.table.routes
            date = datetime.date.today().isoformat()
            text, ids = add_models(text, routes, target, [model], key.reference, date, model_id or None)
            make_private_folder(self._path.parent)
            if key.is_pasted:
                environ[key.name] = key.value
                save_variable(self._path.parent, key.name, key.value)
            save_models_file(text, self._path, environ, self._checks)
            return ids

        async with self._is_free:
            try:
                ids = await asyncio.to_thread(write)
            except AlreadyThere as exc:
                raise ClientError(exc.message) from None
            except ConfigError as exc:
                raise ClientError(exc.message) from None
        return json_response({"model_id": ids[0], "path": str(self._path)})

    async def remove(self, request: web.Request) -> web.Response:
        """``DELETE /v1/entries/{model_id}``: take an entry out of the file, with the comment lines above it."""
        self._require_token()
        from proxyd.config.edit import remove_entry
        from proxyd.config.models import read_text
        from proxyd.onboarding.models_file import save_models_file

        model_id = request.match_info["model_id"]

        def write() -> None:
            text = remove_entry(read_text(self._path), model_id)
            save_models_file(text, self._path, self._environ(), self._checks)

        async with self._is_free:
            try:
                await asyncio.to_thread(write)
            except ConfigError as exc:
                raise ClientError(exc.message) from None
        return json_response({"removed": model_id, "path": str(self._path)})

    # -- parts

    def _require_token(self) -> None:
        if self._relay.settings.auth_token is None:
            raise Forbidden(
                "entries can be changed here only where an access token is set: set auth_token under settings in "
                "models.yaml and restart, or use 'claude-proxy add'"
            )

    async def _body(self, request: web.Request) -> dict[str, Any]:
        self._require_token()
        data = await read_request_body(request, self._relay.settings, self._bodies)
        if len(data) > _MAX_BODY_BYTES:
            raise ClientError(f"expected a small JSON object, got {len(data)} bytes")
        body: dict[str, Any] = parse_object(data)
        if unknown := sorted(body.keys() - _FIELDS):
            raise ClientError(f"{unknown[0][:100]}: unknown; expected {', '.join(sorted(_FIELDS))}")
        return body

    async def _target(self, body: Mapping[str, Any]) -> tuple[Target, FoundKey]:
        """Return the upstream and its key."""
        from proxyd.onboarding.fetching import http_session
        from proxyd.onboarding.found_key import FoundKey
        from proxyd.onboarding.local_servers import inspect_server
        from proxyd.onboarding.pasted_key import read_pasted_key, variable_named
        from proxyd.onboarding.targets import address_target, server_target, valid_address, vendor_target
        from proxyd.onboarding.vendors import find_vendor
        from proxyd.urls import is_private_host, origin_of

        name, address, pasted = (_text(body, each) for each in ("vendor", "api_base", "key"))
        direct = body.get("direct") is True
        try:
            base = valid_address(address) if address else None
        except ValueError as exc:
            raise ClientError(f"api_base: {exc}") from None
        if variable_named(pasted, {}) is not None:
            raise ClientError("key: this is the name of a variable; paste the key itself")
        try:
            given = read_pasted_key(pasted) if pasted else ""
        except ValueError as exc:
            raise ClientError(f"key: {exc}") from None
        vendor = find_vendor(name) if name else None
        if vendor is None and base is None:
            raise ClientError("expected the name of a known vendor, or api_base")
        if vendor is not None and base is None and not vendor.api_base:
            raise ClientError(f"api_base: {vendor.title} has an address for each account; give yours")
        if vendor is not None:
            target = vendor_target(vendor, base, None, direct=direct)
        else:
            assert base is not None
            server = None
            if is_private_host(base):
                async with http_session(self._relay.settings.ca_file) as session:
                    server = await inspect_server(session, origin_of(base))
            target = (
                address_target(base, None, None, direct=direct)
                if server is None
                else server_target(server, base, direct=direct)
            )
        if target.access_token:
            raise ClientError(f"{target.title} signs in with an account; use 'claude-proxy add'")
        if not target.key_env:
            return target, FoundKey()
        environ = await asyncio.to_thread(self._environ)
        known = environ.get(target.key_env, "").strip()
        if given:
            # Another account's key gets a variable of its own.
            names = (target.key_env, *(f"{target.key_env}_{number}" for number in range(2, 1000)))
            key_env = next(name for name in names if environ.get(name, "").strip() in ("", given))
            return target, FoundKey(key_env, given, is_pasted=environ.get(key_env, "").strip() != given)
        found = FoundKey(target.key_env, known) if known else self._of_keyring(target)
        if found is not None and self._is_sent_there(target, found):
            return target, found
        raise ClientError(f"key: {target.title} needs one; paste it")

    def _of_keyring(self, target: Target) -> FoundKey | None:
        """Return the target's key of the system's keyring, where an entry has it: it was read with the entries."""
        from proxyd.onboarding.found_key import FoundKey

        found = FoundKey(target.key_env, in_keyring=True)
        keys = (each.api_key for each in self._relay.table.routes if each.key_origin == found.reference)
        key = next((key for key in keys if key is not None), None)
        return None if key is None else replace(found, value=key.reveal())

    def _is_sent_there(self, target: Target, key: FoundKey) -> bool:
        """Return whether the key goes to the target's server already, or belongs to it.

        A key that is known is not sent to another server because somebody has typed its address.
        """
        from proxyd.onboarding.vendors import VENDORS
        from proxyd.urls import origin_of

        origins = {origin_of(each.api_base) for each in VENDORS if each.key_env == target.key_env}
        origins |= {
            origin_of(route.api_base)
            for route in self._relay.table.routes
            if route.key_origin == key.reference
        }
        return origin_of(target.api_base) in origins

    async def _listed(self, target: Target, key: str) -> list[ListedModel]:
        from proxyd.config.catalog import load_catalog
        from proxyd.config.paths import resolve_state_folder
        from proxyd.onboarding.fetching import FetchFailed, http_session, with_remedy
        from proxyd.onboarding.listing import fetch_models
        from proxyd.onboarding.model_list import completed
        from proxyd.secret import Secret

        models = target.models
        if models is None:
            try:
                async with http_session(self._relay.settings.ca_file) as session:
                    found = await fetch_models(
                        session,
                        target.models_url,
                        target.profile,
                        Secret(key) if key else None,
                        target.format,
                    )
            except FetchFailed as exc:
                # A name without a list is for the command: the page shows what there is to choose from.
                is_refused = exc.status in (401, 403)
                other = "use 'claude-proxy add' with --model"
                raise ClientError(exc.message if is_refused else with_remedy(exc.message, other)) from None
            models = tuple(found)
        catalog, _ = await asyncio.to_thread(load_catalog, resolve_state_folder(os.environ))
        return [completed(each, catalog.find(target.profile, each.name)) for each in models]

    def _environ(self) -> dict[str, str]:
        from proxyd.config.envfile import with_env_file

        return with_env_file(self._path.parent, os.environ)


def _text(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name, "")
    if not isinstance(value, str):
        raise ClientError(f"{name}: expected a text")
    return value.strip()
