"""Web search among other tools, as programs built on the SDKs send it: offered to the model as a function.

The function's calls are made by the proxy, and the client sees the blocks of Anthropic's search. What it sends back in
later turns becomes calls of the function again, with the same results, so that the prompt keeps its beginning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from proxyd.server_tools.web_search.blocks import results_in, text_of
from proxyd.server_tools.web_search.side_call import SearchCall, is_search_tool

__all__ = ["OfferedSearch", "error_block", "result_block", "search_id", "use_block"]

#: Searches of one response where the client names no limit, and the most.
_USES, _MAX_USES = 8, 20
_ID = "srvtoolu_"
_DESCRIPTION = (
    "Search the web. Returns numbered results with title, address and an excerpt of each page; cite the addresses that "
    "you use."
)
_SCHEMA = {
    "type": "object",
    "properties": {"query": {"type": "string", "description": "What to search for."}},
    "required": ["query"],
}


@dataclass(frozen=True, slots=True)
class OfferedSearch:
    """Anthropic's search tool in a request that offers other tools as well.

    Attributes:
        tool: its definition.
        name: under which the model calls it.
        max_uses: searches that one response may make.
    """

    tool: Mapping[str, Any]
    name: str
    max_uses: int

    @classmethod
    def among_tools(cls, payload: Mapping[str, Any]) -> OfferedSearch | None:
        """Return the search of a request; None where it offers none, or nothing else."""
        tools = payload.get("tools")
        if not isinstance(tools, list) or all(map(is_search_tool, tools)):
            return None
        found = next(filter(is_search_tool, tools), None)
        if found is None:
            return None
        uses = found.get("max_uses")
        limit = uses if isinstance(uses, int) and not isinstance(uses, bool) and uses >= 0 else _USES
        return cls(found, str(found.get("name") or "web_search"), min(limit, _MAX_USES))

    def wanted(self, query: str) -> SearchCall:
        """Return the search for a query, within the tool's limits."""
        return SearchCall.by({**self.tool, "max_uses": None}, query)

    def request(
        self, payload: Mapping[str, Any], model: str, content: Sequence[Mapping[str, Any]], *, uses_left: int
    ) -> dict[str, Any]:
        """Return the request to the model.

        Args:
            payload: the client's request.
            content: the blocks of the response so far.
            uses_left: searches that may still be made; without any the function is not offered.
        """
        function = {"name": self.name, "description": _DESCRIPTION, "input_schema": _SCHEMA}
        offered = [function] if uses_left else []
        tools = [
            each
            for tool in payload["tools"]
            for each in (offered if tool is self.tool else () if is_search_tool(tool) else (tool,))
        ]
        messages = payload["messages"]
        if content:
            messages = [*messages, {"role": "assistant", "content": list(content)}]
        request = {
            **payload,
            "model": model,
            "stream": True,
            "tools": tools,
            "messages": [each for message in messages for each in self._with_calls(message)],
        }
        choice = payload.get("tool_choice")
        if (
            isinstance(choice, dict)
            and choice.get("type") in ("any", "tool")
            and (content or not uses_left)  # it has been followed, or cannot be
        ):
            rest = {name: value for name, value in choice.items() if name != "name"}
            request["tool_choice"] = {**rest, "type": "auto"}
        return request

    def _with_calls(self, message: Any) -> list[Any]:
        """Return a message with its searches as calls of the function, and results as messages of the user."""
        content = message.get("content") if isinstance(message, dict) else None
        if not isinstance(content, list) or message.get("role") != "assistant":
            return [message]
        answered = {block.get("tool_use_id") for block in content if _is(block, "web_search_tool_result")}
        if not answered:
            return [message]
        found: list[Any] = []
        blocks: list[Any] = []
        results: list[Any] = []
        queries: dict[Any, str] = {}

        def flush() -> None:
            if blocks:
                found.append({**message, "content": list(blocks)})
            if results:
                found.append({"role": "user", "content": list(results)})
            blocks.clear()
            results.clear()

        for block in content:
            if _is(block, "web_search_tool_result") and block.get("tool_use_id") in queries:
                results.append(_tool_result(block, queries[block["tool_use_id"]]))
                continue
            if results:
                flush()
            if _is(block, "server_tool_use") and block.get("id") in answered:
                value = block.get("input")
                query = str(value.get("query", "")) if isinstance(value, dict) else ""
                queries[block["id"]] = query
                blocks.append(
                    {"type": "tool_use", "id": block["id"], "name": self.name, "input": {"query": query}}
                )
            else:
                blocks.append(block)
        flush()
        return found


def search_id(call_id: str) -> str:
    """Return the client's id of a search that the model has called with this id."""
    return _ID + "".join(sign if sign.isalnum() and sign.isascii() else "_" for sign in call_id)


def use_block(call_id: str) -> dict[str, Any]:
    """Return the block with which a search begins."""
    return {"type": "server_tool_use", "id": search_id(call_id), "name": "web_search", "input": {}}


def result_block(call_id: str, content: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the block with the results of a search."""
    return {"type": "web_search_tool_result", "tool_use_id": search_id(call_id), "content": content}


def error_block(call_id: str, code: str) -> dict[str, Any]:
    """Return the block of a search that was not made."""
    error = {"type": "web_search_tool_result_error", "error_code": code}
    return {"type": "web_search_tool_result", "tool_use_id": search_id(call_id), "content": error}


def _tool_result(block: Mapping[str, Any], query: str) -> dict[str, Any]:
    """Return a result block as the result of a call."""
    content = block.get("content")
    result: dict[str, Any] = {"type": "tool_result", "tool_use_id": block["tool_use_id"]}
    if isinstance(content, list):
        return {**result, "content": text_of(query, results_in(content))}
    code = content.get("error_code") if isinstance(content, dict) else None
    text = f"No web search was made ({code}). Answer without it, and say that nothing was searched."
    return {**result, "content": text, "is_error": True}


def _is(block: Any, kind: str) -> bool:
    return isinstance(block, dict) and block.get("type") == kind
