"""Kimi's own search, which is a request of its own: where it goes, what it holds, and what is in the response.

A membership (Kimi Code, ``…/coding/v1``) has a search with results like those of any engine. On the open platform the
official tool is called, whose output only the model can read::

    POST {api_base}/formulas/moonshot/web-search:latest/fibers
    {"name": "web_search", "arguments": "{\\"query\\": \\"…\\"}"}
    {"status": "succeeded", "context": {"encrypted_output": "----MOONSHOT ENCRYPTED BEGIN----…", "references": […]}}

The output goes to the model as the result of a call. `references` does not always come; the links that the model then
cites count, too. The older ``$web_search`` of Chat Completions is not used: users report that it returns nothing of
late.

Sources: platform.kimi.ai, "How to Use Official Tools in Kimi API"; MoonshotAI/kimi-cli, tools/web/search.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from proxyd import jsonio
from proxyd.server_tools.web_search.engines import Result, SearchFailed

__all__ = [
    "MEMBERSHIP",
    "answer_request",
    "fiber_request",
    "fiber_url",
    "links_in",
    "membership_url",
    "read_fiber",
]

#: The engine of a membership, one of `engines.ENGINES`.
MEMBERSHIP = "kimi-code"
_MEMBERSHIP_PATH = "/coding/v1"
_FORMULA = "moonshot/web-search:latest"
_NAME = "web_search"
_TOOL = {
    "name": _NAME,
    "description": "Search the web for information",
    "input_schema": {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "What to search for"}},
        "required": ["query"],
    },
}
#: Links that are taken from the model's words.
_MAX_LINKS = 20
_LINK = re.compile(r"\[([^\[\]]{1,300})\]\((https?://(?:[^\s()]|\([^\s()]{0,200}\)){1,2000})\)")


def membership_url(api_base: str) -> str | None:
    """Return where a membership searches; None for the open platform."""
    base = api_base.rstrip("/")
    return f"{base}/search" if urlsplit(base).path.endswith(_MEMBERSHIP_PATH) else None


def fiber_url(api_base: str) -> str:
    """Return where the open platform runs its search."""
    return f"{api_base.rstrip('/')}/formulas/{_FORMULA}/fibers"


def fiber_request(query: str) -> dict[str, Any]:
    """Return the request that runs a search."""
    return {"name": _NAME, "arguments": jsonio.dump_text({"query": query})}


def read_fiber(response: Any) -> tuple[str, list[str]]:
    """Return the output for the model, and the addresses that the response names.

    Raises:
        SearchFailed: it ran no search.
    """
    context = response.get("context") if isinstance(response, Mapping) else None
    if not isinstance(context, Mapping) or response.get("status") != "succeeded":
        raise SearchFailed("Kimi's search did not succeed")
    output = context.get("encrypted_output") or context.get("output")
    if not isinstance(output, str) or not output.strip():
        raise SearchFailed("Kimi's search returned nothing")
    references = context.get("references")
    found = (
        each.get("url") if isinstance(each, Mapping) else each
        for each in (references if isinstance(references, list) else ())
    )
    return output, [url for url in found if isinstance(url, str) and url.startswith(("https://", "http://"))]


def answer_request(model: str, query: str, output: str, max_tokens: int) -> dict[str, Any]:
    """Return the Messages request in which the model says what a search has found."""
    text = (
        f"Perform a web search for the query: {query}\n\nThen say briefly what the results say. Cite each source as a "
        "Markdown link with its whole address."
    )
    call = {"type": "tool_use", "id": "toolu_search", "name": _NAME, "input": {"query": query}}
    return {
        "model": model,
        "max_tokens": max_tokens,
        "stream": False,
        "thinking": {"type": "disabled"},
        "tools": [_TOOL],
        "tool_choice": {"type": "none"},
        "messages": [
            {"role": "user", "content": text},
            {"role": "assistant", "content": [call]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": call["id"], "content": output}],
            },
        ],
    }


def links_in(answer: str) -> list[Result]:
    """Return the links of the model's words, each address once."""
    found: dict[str, Result] = {}
    for match in _LINK.finditer(answer):
        title, url = match.groups()
        if len(found) < _MAX_LINKS:
            found.setdefault(url, Result(title.strip(), url))
    return list(found.values())
