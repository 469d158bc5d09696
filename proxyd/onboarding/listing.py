"""Fetch the list of models of a hosted vendor, page by page."""

from __future__ import annotations

from urllib.parse import urljoin

import aiohttp

from proxyd.codecs.formats import FORMATS
from proxyd.onboarding.fetching import FetchFailed, fetch_json
from proxyd.onboarding.model_list import ListedModel, next_page, read_models
from proxyd.providers.registry import PROFILES
from proxyd.secret import Secret
from proxyd.urls import address_of, origin_of

__all__ = ["fetch_models"]

#: More than any vendor has; OpenRouter's pages have 500 models.
_MAX_PAGES = 20


async def fetch_models(
    session: aiohttp.ClientSession, url: str, profile: str, key: Secret | None, chosen: str | None = None
) -> list[ListedModel]:
    """Return the chat models of the list at `url`.

    Args:
        chosen: name of the format that the upstream speaks; None leaves the key's header to the profile.
        key: None for a list that needs none; a refusal that repeats it is masked.

    Raises:
        FetchFailed: it cannot be fetched, or is no list.
    """
    headers = _key_headers(profile, key.reveal(), chosen) if key is not None else {}
    found: dict[str, ListedModel] = {}
    page: str | None = url
    for _ in range(_MAX_PAGES):
        if page is None:
            break
        payload = await fetch_json(session, page, headers=headers)
        try:
            models = read_models(payload)
        except ValueError as exc:
            if found:
                break
            raise FetchFailed(f"{address_of(page)}: {exc}") from None
        for model in models:
            found.setdefault(model.name, model)
        following = next_page(payload)
        page = urljoin(page, following) if following else None
        if page is not None and origin_of(page) != origin_of(url):
            break  # the key is for this address alone
    return list(found.values())


def _key_headers(profile: str, key: str, chosen: str | None) -> dict[str, str]:
    own = None if chosen is None else FORMATS[chosen].key_header
    if own is not None:
        return {own: key}
    if profile == "anthropic":
        return {"x-api-key": key, "anthropic-version": "2023-06-01"}
    if PROFILES[profile].auth == "api-key":
        return {"api-key": key}
    return {"authorization": f"Bearer {key}"}
