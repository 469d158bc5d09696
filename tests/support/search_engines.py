"""Responses of search engines, cut from their documents, each with the same two results.

Sources: docs.searxng.org/dev/search_api.html; api-dashboard.search.brave.com (Web Search API, responses);
docs.tavily.com/documentation/api-reference/endpoint/search; serper.dev (playground); docs.exa.ai/reference/search;
MoonshotAI/kimi-cli, tools/web/search.py.
"""

from __future__ import annotations

from typing import Any

__all__ = ["RESPONSES"]

RESPONSES: dict[str, dict[str, Any]] = {
    "searxng": {
        "query": "rust news",
        "number_of_results": 0,
        "results": [
            {
                "url": "https://a.example/1",
                "title": "First",
                "content": "The first text.",
                "publishedDate": "2026-05-01T00:00:00",
                "engine": "duckduckgo",
                "parsed_url": ["https", "a.example", "/1", "", "", ""],
                "engines": ["duckduckgo"],
                "positions": [1],
                "score": 1.0,
                "category": "general",
            },
            {
                "url": "https://b.example/2",
                "title": "Second",
                "content": "",
                "publishedDate": None,
                "engine": "brave",
            },
        ],
        "answers": [],
        "corrections": [],
        "infoboxes": [],
        "suggestions": [],
        "unresponsive_engines": [["google", "CAPTCHA"]],
    },
    "brave": {
        "type": "search",
        "query": {"original": "rust news", "more_results_available": True},
        "mixed": {"type": "mixed", "main": [{"type": "web", "index": 0, "all": False}]},
        "web": {
            "type": "search",
            "results": [
                {
                    "title": "First",
                    "url": "https://a.example/1",
                    "is_source_local": False,
                    "description": "The <strong>first text</strong>.",
                    "page_age": "2026-05-01T00:00:00",
                    "age": "May 1, 2026",
                    "profile": {"name": "A", "url": "https://a.example/1"},
                    "language": "en",
                    "family_friendly": True,
                    "type": "search_result",
                },
                {"title": "Second", "url": "https://b.example/2", "description": "The second text."},
            ],
            "family_friendly": True,
        },
    },
    "tavily": {
        "query": "rust news",
        "answer": None,
        "images": [],
        "results": [
            {
                "title": "First",
                "url": "https://a.example/1",
                "content": "The first text.",
                "score": 0.81,
                "raw_content": None,
            },
            {"title": "Second", "url": "https://b.example/2", "content": "The second text.", "score": 0.5},
        ],
        "response_time": 1.67,
        "request_id": "123e4567",
    },
    "serper": {
        "searchParameters": {"q": "rust news", "type": "search", "num": 8, "engine": "google"},
        "organic": [
            {
                "title": "First",
                "link": "https://a.example/1",
                "snippet": "The first text.",
                "date": "May 1, 2026",
                "position": 1,
            },
            {"title": "Second", "link": "https://b.example/2", "snippet": "The second text.", "position": 2},
        ],
        "peopleAlsoAsk": [],
        "credits": 1,
    },
    "exa": {
        "requestId": "b5947044",
        "resolvedSearchType": "neural",
        "results": [
            {
                "id": "https://a.example/1",
                "title": "First",
                "url": "https://a.example/1",
                "publishedDate": "2026-05-01T00:00:00.000Z",
                "author": None,
                "text": "The first text.",
            },
            {
                "id": "https://b.example/2",
                "title": None,
                "url": "https://b.example/2",
                "text": "The second text.",
            },
        ],
        "costDollars": {"total": 0.005},
    },
    "kimi-code": {
        "search_results": [
            {
                "site_name": "A",
                "title": "First",
                "url": "https://a.example/1",
                "snippet": "The first text.",
                "date": "2026-05-01",
            },
            {
                "site_name": "B",
                "title": "Second",
                "url": "https://b.example/2",
                "snippet": "The second text.",
            },
        ],
    },
}
