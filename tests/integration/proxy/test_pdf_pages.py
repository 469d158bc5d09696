"""PDFs for an upstream that takes none, through real sockets and real reading processes."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from structlog.testing import capture_logs

from proxyd.proxy import pdf_pages
from tests.support.harness import Upstream, running_proxy, running_upstream, text_stream
from tests.support.pdf_files import LOCKED, pdf_block, pdf_of

pytest.importorskip("pypdfium2")

WORDS = "The answer is forty-two"
PDF = pdf_block(pdf_of(WORDS, ""), title="report")
QUESTION = {"role": "user", "content": [{"type": "text", "text": "What is the answer?"}, PDF]}


@pytest.fixture(autouse=True)
def environments(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, str]]]:
    """The environment of each process that was started; all of them have to have ended."""
    started: list[tuple[asyncio.subprocess.Process, dict[str, str]]] = []
    environments: list[dict[str, str]] = []
    start = asyncio.create_subprocess_exec

    async def start_and_note(*args: Any, **kwargs: Any) -> asyncio.subprocess.Process:
        process = await start(*args, **kwargs)
        started.append((process, kwargs["env"]))
        environments.append(kwargs["env"])
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_and_note)
    yield environments
    assert all(process.returncode is not None for process, _ in started)


async def respond(request: web.Request) -> web.StreamResponse:
    text = "A grey square." if "You describe images" in await request.text() else "ok"
    return web.Response(body=text_stream(text), content_type="text/event-stream")


async def converse(entry: dict[str, Any], *questions: dict[str, Any], **settings: Any) -> Upstream:
    """Ask an entry, and return its upstream, which describes images for it, too."""
    async with running_upstream(respond) as upstream:
        base_of = {"api_base": f"{upstream.base}/v1"}
        entries = [{"model_id": "m", **base_of, **entry}, {"model_id": "eyes", **base_of}]
        async with running_proxy(entries, **settings) as base, aiohttp.ClientSession() as client:
            for question in questions or [QUESTION]:
                payload = {"model": "m", "max_tokens": 50, "messages": [question]}
                async with client.post(f"{base}/v1/messages", json=payload) as response:
                    assert response.status == 200, await response.text()
    return upstream


def parts_of(request: dict[str, Any]) -> list[str]:
    """Return the texts that a model gets, and the beginnings of images."""
    content = request["messages"][-1]["content"]
    if isinstance(content, str):
        return content.split("\n\n")
    return [part.get("text") or part["image_url"]["url"][:15] for part in content]


async def test_a_model_that_sees_images_gets_text_and_image_of_each_page(
    environments: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPSEEK_API_KEY", "sk-secret-0123456789")
    in_a_result = {"type": "tool_result", "tool_use_id": "t", "content": [PDF]}
    upstream = await converse({}, QUESTION, QUESTION, {"role": "user", "content": [in_a_result]})
    first, second, third = upstream.requests
    assert parts_of(first) == [
        "What is the answer?",
        "report",
        "[PDF of 2 pages]",
        f"[Page 1]\n{WORDS}",
        "data:image/jpeg",
        "[Page 2, which has no text]",
        "data:image/jpeg",
        "[End of the PDF]",
    ]
    assert second["messages"] == first["messages"]
    assert WORDS in json.dumps(third["messages"])
    assert len(environments) == 1  # it is read once, and the process is given nothing
    assert not any("KEY" in name for name in environments[0])


async def test_a_model_that_sees_none_gets_text_and_descriptions() -> None:
    upstream = await converse({"vision": False}, images={"describe_with": "eyes"})
    description, request = upstream.requests
    assert "What is the answer?" in json.dumps(description["messages"])
    assert "data:image/jpeg" in json.dumps(description["messages"])
    assert "image_url" not in json.dumps(request["messages"])
    sent = "\n".join(parts_of(request))
    assert f"[Page 1]\n{WORDS}\n[Page 2, which has no text]\n[Image, which you cannot see." in sent
    assert (
        "by the model eyes:]\nA grey square.\n[End of the description of the image]\n[End of the PDF]" in sent
    )


async def test_without_a_describer_pages_without_text_are_left_out_and_a_hint_says_what_to_set() -> None:
    with capture_logs() as logs:
        upstream = await converse({"vision": False}, QUESTION, QUESTION)
    assert parts_of(upstream.requests[0])[3:5] == [
        f"[Page 1]\n{WORDS}",
        "[Page 2 has no text, and is not shown]",
    ]
    (hint,) = [each["hint"] for each in logs if each["event"] == "pdfs.not_shown"]
    assert "describe_with" in hint


async def test_without_the_library_the_placeholder_and_a_hint_say_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pdf_pages, "can_read_pdfs", lambda: False)
    with capture_logs() as logs:
        upstream = await converse({}, QUESTION, QUESTION)
    assert "installing claude-proxyd[pdf]" in parts_of(upstream.requests[1])[1]
    (hint,) = [each["hint"] for each in logs if each["event"] == "pdfs.not_shown"]
    assert "pip install 'claude-proxyd[pdf]'" in hint


async def test_an_upstream_that_takes_files_gets_the_file(environments: list[dict[str, str]]) -> None:
    upstream = await converse({"quirks": {"files": True}})
    (file,) = [part for part in upstream.requests[0]["messages"][-1]["content"] if part["type"] == "file"]
    assert file["file"]["file_data"].endswith(PDF["source"]["data"])
    assert environments == []


@pytest.mark.parametrize(
    ("data", "limits", "why"),
    [
        (pdf_of(WORDS, trailer=LOCKED), {}, "it is protected by a password"),
        ("QUJDR", {}, "its data is no base64"),
        (pdf_of(WORDS), {"MAX_BYTES": 100}, "it is larger than"),
        (pdf_of(WORDS), {"TIMEOUT_S": 0.001}, "takes longer than 0.001 s"),
        (pdf_of(WORDS), {"executable": shutil.which("false")}, "reading it failed (exit code 1)"),
        (pdf_of(WORDS), {"executable": "/nowhere"}, "no process could be started"),
    ],
)
async def test_a_pdf_that_cannot_be_read_says_why(
    data: bytes | str, limits: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(sys if name == "executable" else pdf_pages, name, value)
    question = {"role": "user", "content": [pdf_block(data)]}
    with capture_logs() as logs:
        upstream = await converse({}, question, question)
    (text,) = parts_of(upstream.requests[1])
    assert text.startswith("[PDF, which cannot be read: ")
    assert why in text
    (line,) = [each["why"] for each in logs if each["event"] == "pdfs.not_read"]
    assert why in line


async def test_what_is_remembered_is_bounded(
    environments: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pdf_pages, "MAX_REMEMBERED", 10)
    other = {"role": "user", "content": [pdf_block(pdf_of(f"{WORDS}, or not"))]}
    await converse({"vision": False}, QUESTION, other, other, QUESTION)
    assert len(environments) == 3
