"""What holds for whatever body a client sends: the second target of `make fuzz`, and of a quick test in the suite.

The input is read as ``variant, options, body…``: the first byte picks the upstream, the second the kind of call, the
rest is the request body. What is done with it before anything is sent must end in a request or in a `ProxyError`,
and in nothing else:

- counting, and telling what kind of call it is, know a response to everything;
- translated: the upstream's body is JSON, and the client's payload is as it was;
- direct: a body that nothing in the entry changes goes on byte for byte; else the model is the entry's, and all that is
  not cut is there.
"""

from __future__ import annotations

import itertools
from typing import Any

from multidict import CIMultiDict

from proxyd import jsonio
from proxyd.codecs.formats import GEMINI, RESPONSES
from proxyd.codecs.translation.token_estimate import estimate_input_tokens
from proxyd.codecs.translation.translated import run_to_end
from proxyd.config.routes import ModelRoute
from proxyd.errors import ProxyError
from proxyd.prompt_cache.parser import parse_object
from proxyd.providers import direct_request as direct
from proxyd.providers import translated_request as translated
from proxyd.providers.base import CallTimeouts, ClientKeys
from proxyd.providers.registry import PROFILES
from proxyd.secret import Secret
from proxyd.telemetry.request_kind import kind_of, session_in

__all__ = ["SEEDS", "check"]

_KEYS = ClientKeys(api_key=Secret("sk-of-the-fuzzer-0123"))
_MORE: dict[str, Any] = {"max_tokens": 100, "reasoning_effort": "low", "extra_body": {"a": {"b": 1}}}
_TRANSLATED = [
    ModelRoute("m", "http://127.0.0.1:1/v1", name, provider=profile, **more)
    for profile in PROFILES
    for name, more in (
        ("m", {}),
        ("gpt-5", {"max_tokens": 100, "reasoning_effort": "low", "extra_body": {"a": {"b": 1}}}),
    )
]
_TRANSLATED += [
    ModelRoute("m", "http://127.0.0.1:1/v1", name, provider=profile, format=RESPONSES.name)
    for profile, name in (("openai", "gpt-5.6"), ("vllm", "m"), ("generic", "m"))
]
_TRANSLATED += [
    ModelRoute("m", "http://127.0.0.1:1/v1beta", name, provider=profile, format=GEMINI.name, **more)
    for profile, name, more in (
        ("gemini", "gemini-3-pro", {}),
        ("gemini", "gemini-2.5-pro", {"quirks": {"schema_style": "gemini"}}),
        ("vertex", "gemini-3-pro", {}),
        ("generic", "m", _MORE),
    )
]
#: Fields that direct routes may change.
_CHANGED = {"model", "messages", "max_tokens", "temperature", "top_p", "a", "b", "anthropic_version"}
#: Format -> the field that holds the conversation; "messages" where it is not named.
_CONVERSATIONS = {RESPONSES.name: "input", GEMINI.name: "contents"}
_PLAIN = ModelRoute("m", "http://127.0.0.1:1", "m", direct=True)
_DIRECT = [
    _PLAIN,
    ModelRoute("m", "http://127.0.0.1:1", "other", direct=True, omit=("tools", "thinking", "metadata")),
    ModelRoute(
        "m",
        "http://127.0.0.1:1",
        "m",
        direct=True,
        max_tokens=5,
        temperature=0.5,
        top_p=0.1,
        extra_body={"a": [1], "b": None},
    ),
    *(ModelRoute("m", "http://127.0.0.1:1", "m", direct=True, provider=profile) for profile in PROFILES),
]

#: A body of each kind of content, and of each way to be odd.
SEEDS: tuple[bytes, ...] = tuple(
    b"\0\0" + body
    for body in (
        b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}]}',
        b'{"model":"m","stream":true,"system":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}],'
        b'"messages":[{"role":"user","content":[{"type":"text","text":"a"},{"type":"image","source":{"type":"base64",'
        b'"media_type":"image/png","data":"aGk="}}]},{"role":"assistant","content":[{"type":"thinking","thinking":"t",'
        b'"signature":"c2ln"},{"type":"tool_use","id":"toolu_1","name":"f","input":{"a":[1,null]}}]},{"role":"user",'
        b'"content":[{"type":"tool_result","tool_use_id":"toolu_1","content":[{"type":"text","text":"r"}],"is_error":true}]}],'
        b'"tools":[{"name":"f","description":"d","input_schema":{"type":"object","properties":{"a":{"$ref":"#/$defs/x"}},'
        b'"$defs":{"x":{"anyOf":[{"type":"string"},{"type":"null"}]}}}},{"type":"web_search_20250305","name":"w"}],'
        b'"tool_choice":{"type":"tool","name":"f","disable_parallel_tool_use":true},"thinking":{"type":"enabled",'
        b'"budget_tokens":1024},"metadata":{"user_id":"u_session_1"},"stop_sequences":["x"],"temperature":1.0,'
        b'"output_config":{"effort":"high","format":{"type":"json_schema","schema":{}}}}',
        b'{"model":7,"messages":{},"tools":"x","system":5,"max_tokens":"many","thinking":[],"tool_choice":null}',
        b'{"messages":[{"role":"assistant","content":null},{"content":[7,{"type":"document"}]},null,[],"x"]}',
        b'{"model":"m","model":"n","messages":[{"role":"user","role":"assistant","content":"\\ud83d"}]}',
        b' {"model" : "m" , "messages" : [ { "role" : "user" , "content" : "\\u00e9" } ] } ',
    )
)


def check(data: bytes) -> None:
    """Raise AssertionError, or whatever went wrong inside, if `data` breaks a rule of the module's text."""
    if len(data) < 2:
        return
    body = data[2:]
    try:
        payload = parse_object(body)
    except ProxyError:
        return
    if not isinstance(payload.get("model"), str) or not payload["model"]:
        return  # refused by the app, which finds the route by it
    before = repr(payload)
    assert estimate_input_tokens(payload) >= 0
    kind_of(payload, is_subagent=bool(data[1] & 2))
    session_in(payload)
    if isinstance(payload.get("messages"), list) and payload["messages"]:
        _check_translated(_TRANSLATED[data[0] % len(_TRANSLATED)], payload)
    _check_direct(_DIRECT[data[0] % len(_DIRECT)], body, payload, is_count=bool(data[1] & 1))
    assert repr(payload) == before, "the client's payload was changed"


def _check_translated(route: ModelRoute, payload: dict[str, Any]) -> None:
    ids = itertools.count()
    try:
        call = run_to_end(
            translated.prepare(
                route,
                route.api_base,
                payload,
                _KEYS,
                timeouts=CallTimeouts(),
                new_id=lambda prefix, length=24: f"{prefix}{next(ids)}",
                warn=lambda oddity: None,
                max_body_bytes=1 << 20,
            )
        ).written()
    except ProxyError:
        return
    sent = jsonio.loads(call.request.body)
    assert isinstance(sent, dict)
    if route.format == GEMINI.name:
        assert f"/models/{route.model_name}:" in call.request.url
    else:
        assert sent["model"] == route.model_name
    assert isinstance(sent[_CONVERSATIONS.get(str(route.format), "messages")], list)


def _check_direct(route: ModelRoute, body: bytes, payload: dict[str, Any], *, is_count: bool) -> None:
    try:
        request = direct.prepare(
            route,
            path="/v1/messages/count_tokens" if is_count else "/v1/messages",
            query="",
            headers=CIMultiDict(
                {"content-type": "application/json", "anthropic-beta": "effort-1, mcp-client-2"}
            ),
            body=body,
            payload=payload,
            keys=_KEYS,
            timeouts=CallTimeouts(),
        )
    except ProxyError:
        return
    sent = jsonio.loads(request.body)
    assert isinstance(sent, dict)
    if direct.has_models(route) or is_count:
        assert sent["model"] == route.model_name
    else:  # the address names the model
        assert "model" not in sent
        assert f"/{route.model_name}:" in request.url
    if route is _PLAIN and payload.get("model") == "m" and b"thinking" not in body:
        assert request.body == body, "nothing was to be changed"
    for name, value in payload.items():
        if name not in _CHANGED and name in sent:
            assert repr(sent[name]) == repr(value), f"{name} was changed"
