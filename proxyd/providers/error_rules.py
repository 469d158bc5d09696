"""Rules that turn a refusal of an upstream into a quirk of the route.

Vendors and models differ in parameters, and new models appear faster than profiles. When an upstream refuses a
request and names one thing in it that it does not take, `change_for_error` returns the field of `Dialect` that
leaves it out. The caller translates the request again and retries; the quirk is kept only if that succeeds.

Each rule reads the refusal and the body that was sent: a parameter that was not sent cannot be the cause. `_RULES` are
tried in order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proxyd.codecs.upstream_errors.context_overflow import find_output_limit, find_overflow
from proxyd.codecs.upstream_errors.error_envelopes import ErrorDetails, parse_error_body

__all__ = [
    "QuirkChange",
    "change_for_error",
    "content_parts",
    "messages_of",
    "models_yaml_line",
    "output_limit_for",
    "status_of_refusal",
]

#: OpenRouter uses 404 for "no provider takes this", llama.cpp 500 for templates and for images without a projector.
_STATUSES = frozenset({400, 404, 422, 500, 501, 502})
_PLAIN = frozenset({400, 422})
#: A gateway's error of another status that repeats the refusal of the upstream behind it.
_REPEATED = re.compile(
    r"bad_?request_?error|invalid_request_error|INVALID_ARGUMENT|\bstatus(?:[ _]code)?\W{0,3}4(?:00|22)\b"
    r"|\b4(?:00|22) (?:Bad Request|Unprocessable)",
    re.IGNORECASE,
)

#: Longest parts of a message and of a parameter's name that are read.
_MAX_JUDGED_CHARS, _MAX_PARAM_CHARS = 2000, 200

#: A text that names a parameter without one of these words may be about anything.
_REFUSED = re.compile(
    r"unsupported|not supported|n[o']t support|unknown|unrecogni[sz]ed|unexpected|extra[ _]|not permitted"
    r"|not allowed|invalid|unavailable|is deprecated|only|cannot|can't|not compatible|incompatible|too long|must"
    r"|should be|does not take|\bset\b.{1,40}\bto\b|please use|not one of|not a |at most|no endpoints found"
    r"|mandatory|failed to parse|conversion failed|missing|required|expected|jinja",
    re.IGNORECASE,
)

#: Words for an unknown parameter, as opposed to an invalid value.
_UNKNOWN = re.compile(
    r"unsupported parameter|unknown|unrecogni[sz]ed|extra[ _]|not permitted|not supported|is deprecated"
    r"|n[o']t support parameter|unexpected",
    re.IGNORECASE,
)

#: As many words in a row that are in the prompt are a quotation.
_QUOTED_WORDS = 5

_COUNT_LIMIT = re.compile(
    r"(?:maximum length|at most|up to|no more than|maximum of|less than or equal to) (\d{1,4})\b",
    re.IGNORECASE,
)

#: Levels of effort by rising cost, `Dialect.efforts`.
_LEVELS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

#: Parameters that a Dialect switch of the same name leaves out.
_SWITCHES = ("stream_options", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier")

_SAMPLING = ("temperature", "top_p", "top_k")


@dataclass(frozen=True, slots=True)
class QuirkChange:
    """An override of one `Dialect` field, and of those that have to change with it.

    Values are written as under ``quirks:`` in models.yaml.
    """

    quirk: str
    value: Any
    also: tuple[QuirkChange, ...] = ()

    @property
    def quirks(self) -> dict[str, Any]:
        """All overrides by name."""
        return {each.quirk: each.value for each in (self, *self.also)}


@dataclass(frozen=True, slots=True)
class _Refusal:
    """A refusal and the request it is about, the input of the rules.

    Args:
        text: the upstream's message.
        param: the parameter in a field of its own, or "".
        sent: the request's body.
        known: quirks that were learned before and were in force for the request.
    """

    status: int
    text: str
    param: str
    sent: Mapping[str, Any]
    known: Mapping[str, Any]

    def names(self, name: str) -> bool:
        """Whether the refusal is about `name`, a parameter that was sent."""
        if name not in self.sent:
            return False
        if self.param and re.fullmatch(r"[\w.\[\]*-]+", self.param):
            return re.match(rf"{re.escape(name)}(?![\w-])", self.param) is not None
        return self.mentions(name)

    def mentions(self, name: str) -> bool:
        return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", self.text) is not None

    def says(self, pattern: str) -> bool:
        return re.search(pattern, self.text, re.IGNORECASE) is not None


def change_for_error(
    status: int, body: bytes, sent: Mapping[str, Any], known: Mapping[str, Any] | None = None
) -> QuirkChange | None:
    """Return the quirk that avoids a refusal.

    Args:
        status: the upstream's.
        body: the upstream's response.
        sent: the body of the request as it was sent.
        known: quirks that were learned before and were in force for it.

    Returns:
        None when the cause is not recognized, or the prompt is too long.
    """
    refusal = _read(status, body, sent, known or {})
    if refusal is None or find_overflow(refusal.text) or find_output_limit(refusal.text):
        return None
    return next((change for rule in _RULES if (change := rule(refusal)) is not None), None)


def output_limit_for(status: int, body: bytes, sent: Mapping[str, Any]) -> int | None:
    """Return the model's output limit from the refusal of a request that exceeded it.

    It belongs to the entry's ``max_tokens`` in models.yaml and is no quirk: the limit is the model's, not the
    dialect's.
    """
    refusal = _read(status, body, sent, {})
    if refusal is None or refusal.status not in _PLAIN or find_overflow(refusal.text):
        return None
    found = find_output_limit(refusal.text)
    asked = sent.get("max_tokens", sent.get("max_completion_tokens"))
    if found is None or not isinstance(asked, int) or asked <= found.limit:
        return None
    return found.limit


def models_yaml_line(change: QuirkChange) -> str:
    """Return the line of a models.yaml entry that makes `change` permanent."""
    return f"quirks: {_yaml(change.quirks)}"


def _read(status: int, body: bytes, sent: Mapping[str, Any], known: Mapping[str, Any]) -> _Refusal | None:
    error = parse_error_body(body)
    status = status_of_refusal(status, error)
    if status not in _STATUSES:
        return None
    text = _without_quotations(error.message[:_MAX_JUDGED_CHARS], sent)
    if not text or not _REFUSED.search(text):
        return None
    param = "" if error.param.lower() in ("none", "null") else error.param[:_MAX_PARAM_CHARS]
    return _Refusal(status, text, param, sent, known)


def status_of_refusal(status: int, error: ErrorDetails) -> int:
    """Return the status of a refusal: 400 for a gateway's error that repeats the refusal of the upstream behind it."""
    if status < 500:
        return status
    return 400 if _REPEATED.search(error.message[:_MAX_JUDGED_CHARS]) else status


def _without_quotations(message: str, sent: Mapping[str, Any]) -> str:
    """Return the words of a refusal without those that it repeats from the prompt.

    A message of which all is in the prompt is one that the user asks about: it is left whole.
    """
    words = message.split()
    texts = [each.get("content") for each in messages_of(sent)] + [
        part.get("text") for part in content_parts(sent)
    ]
    said = [" ".join(text.split()) for text in texts if isinstance(text, str)]
    prompt, whole = "\n".join(said), {text for text in said if 1 < text.count(" ") < _QUOTED_WORDS}
    is_quoted = [False] * len(words)
    for count in range(3, _QUOTED_WORDS + 1):  # a short message counts as a whole
        for at in range(len(words) - count + 1):
            run = " ".join(words[at : at + count])
            if run in whole or (count == _QUOTED_WORDS and run in prompt):
                is_quoted[at : at + count] = [True] * count
    if all(is_quoted):
        return " ".join(words)
    return " ".join("…" if quoted else word for word, quoted in zip(words, is_quoted, strict=True))


# -- rules

#: Parameters for which a refusal may say which value to send.
_VALUE_PARAMS = ("reasoning_effort", "enable_thinking", "parallel_tool_calls")
_VALUE_TO_SEND = re.compile(
    r"\b(?:set|use|send|specify)\s+[`'\"]?([\w.]{1,40})[`'\"]?\s*(?:to|=|:|as)\s*[`'\"]?(\w{1,20})"
    r"|[`'\"]?\b([\w.]{1,40})[`'\"]?\s+(?:must|has to|should|needs to) be (?:set to )?[`'\"]?(\w{1,20})",
    re.IGNORECASE,
)


def _value_to_send(refusal: _Refusal) -> QuirkChange | None:
    """Read "set X to Y" and "X must be Y"."""
    for found in _VALUE_TO_SEND.finditer(refusal.text):
        name = (found[1] or found[3]).rpartition(".")[2]
        word = (found[2] or found[4]).lower()
        if name == "effort":
            name = "reasoning_effort"
        if name not in _VALUE_PARAMS:
            continue
        if name == "reasoning_effort" and (word not in _LEVELS or _is_list(refusal.text[found.end() :])):
            continue
        if name != "reasoning_effort" and word not in ("true", "false"):
            continue
        value: Any = word if name == "reasoning_effort" else word == "true"
        if refusal.sent.get(name) == value:
            continue
        if refusal.says(r"\btools?\b|\bfunctions?\b"):
            return QuirkChange("body_with_tools", {name: value}) if refusal.sent.get("tools") else None
        if name == "reasoning_effort":
            return QuirkChange("efforts", {value: value})
        return QuirkChange("body", {name: value})
    return None


def _is_list(rest: str) -> bool:
    """Whether a level is followed by another one: the refusal lists levels, which `_effort` reads."""
    return (
        re.match(rf"\W{{0,4}}(?:(?:or|and)\W{{1,3}})?(?:{'|'.join(_LEVELS)})\b", rest, re.IGNORECASE)
        is not None
    )


def _reasoning_history(refusal: _Refusal) -> QuirkChange | None:
    """Read demands for reasoning, or for thought signatures, of earlier messages, and refusals of it."""
    is_missing = refusal.says(
        r"missing|must be (?:passed|provided|included|present)|(?:is|are) required|required for"
    )
    calls = any(message.get("tool_calls") for message in messages_of(refusal.sent))
    if calls and is_missing and refusal.says(r"thought_signature"):
        return QuirkChange(
            "thought_signatures",
            True,
            (QuirkChange("thought_signature_placeholder", "skip_thought_signature_validator"),),
        )
    for name in ("reasoning_content", "reasoning"):
        if not refusal.mentions(name):
            continue
        if is_missing and any(message.get("role") == "assistant" for message in messages_of(refusal.sent)):
            also = QuirkChange("reasoning_field", name), QuirkChange("reasoning_placeholder", ".")
            return QuirkChange("reasoning_return", "field", also)
        is_refused = _UNKNOWN.search(refusal.text) or refusal.says("unsupported")
        if is_refused and any(name in message for message in messages_of(refusal.sent)):
            return QuirkChange("reasoning_return", "none")
    return None


def _output_limit_name(refusal: _Refusal) -> QuirkChange | None:
    for ours, other in (
        ("max_tokens", "max_completion_tokens"),
        ("max_completion_tokens", "max_tokens"),
    ):
        if refusal.names(ours) and _UNKNOWN.search(refusal.text):
            return QuirkChange("max_tokens_field", other)
    return None


def _switch(refusal: _Refusal) -> QuirkChange | None:
    named = [name for name in _SWITCHES if refusal.names(name)]
    return QuirkChange(named[0], False) if len(named) == 1 else None


def _sampling(refusal: _Refusal) -> QuirkChange | None:
    sent = [name for name in _SAMPLING if name in refusal.sent]
    named = [name for name in sent if refusal.names(name)]
    if not named:
        return None
    if named == ["temperature", "top_p"] and refusal.says(r"\bboth\b"):
        named = ["top_p"]  # Claude models behind a gateway take one of the two
    return QuirkChange("sampling", [name for name in sent if name not in named])


def _stop(refusal: _Refusal) -> QuirkChange | None:
    if not refusal.names("stop"):
        return None
    limit = _COUNT_LIMIT.search(refusal.text)
    return QuirkChange("stop_limit", int(limit[1]) if limit else 0)


def _effort(refusal: _Refusal) -> QuirkChange | None:
    sent = refusal.sent.get("reasoning_effort")
    reasoning = refusal.sent.get("reasoning")
    if sent is None and isinstance(reasoning, Mapping):
        sent = reasoning.get("effort")
    is_named = (
        refusal.names("reasoning_effort")
        or refusal.param.endswith("effort")
        or refusal.says(r"\breasoning[._]effort\b|\breasoning effort\b|reasoning is mandatory")
    )
    if not isinstance(sent, str) or not is_named:
        return None
    known = _levels_after(
        r"(?:(?:supported|allowed|valid|accepted) (?:values|options|levels)|must be one of|expected one of|one of"
        r"|should be|must be|please use|only (?:supports?|accepts?|takes|allows?))",
        refusal.text,
        sent,
    )
    if known:
        return QuirkChange("efforts", _efforts(known))
    is_for_value = refusal.says(rf"\b{sent}\b|mandatory|\bvalue\b") and not refusal.says(
        "unsupported parameter"
    )
    if sent in ("none", "minimal", "xhigh", "max") and is_for_value:
        return QuirkChange("efforts", _efforts(["low", "medium", "high"]))
    return QuirkChange("effort_path", None)


def _levels_after(words: str, text: str, sent: str) -> list[str]:
    """Return the levels listed after `words`, unless the list holds the refused one."""
    found = re.search(rf"{words}\W{{0,4}}(?:are|is|values)?(.{{1,200}})", text, re.IGNORECASE)
    levels = [level for level in _LEVELS if found and re.search(rf"\b{level}\b", found[1], re.IGNORECASE)]
    return [] if sent in levels else levels


def _efforts(known: list[str]) -> dict[str, str]:
    efforts = {level: level for level in known}
    if "none" not in efforts and "minimal" in efforts:
        efforts["none"] = "minimal"  # the closest level to no thinking
    return efforts


def _thinking(refusal: _Refusal) -> QuirkChange | None:
    is_named = any(
        refusal.names(name) for name in ("thinking", "enable_thinking", "chat_template_kwargs")
    ) or ("chat_template_kwargs" in refusal.sent and refusal.mentions("chat_template"))
    return QuirkChange("thinking_path", None) if is_named and _UNKNOWN.search(refusal.text) else None


def _response_format(refusal: _Refusal) -> QuirkChange | None:
    asked = refusal.sent.get("response_format")
    if not isinstance(asked, Mapping) or not (
        refusal.names("response_format")
        or refusal.mentions("response_format")
        or refusal.mentions("json_schema")
    ):
        return None
    return QuirkChange("response_format", "json_object" if asked.get("type") == "json_schema" else "none")


def _tool_choice(refusal: _Refusal) -> QuirkChange | None:
    choice = refusal.sent.get("tool_choice")
    if choice is None or not (refusal.names("tool_choice") or refusal.mentions("tool_choice")):
        return None
    is_known = refusal.known.get("forced_choice_while_thinking") is False
    if refusal.says(r"\bthinking\b") and (is_known or (refusal.known and not _asks_to_think(refusal.sent))):
        # The model thinks although it was not asked to.
        return QuirkChange("named_tool_choice", False, (QuirkChange("required_word", "auto"),))
    if isinstance(choice, Mapping):
        is_for_thinking = refusal.says(r"\bthinking\b")
        return QuirkChange("forced_choice_while_thinking" if is_for_thinking else "named_tool_choice", False)
    if choice not in ("required", "any"):
        return None
    if refusal.says(r"\bthinking\b"):
        return QuirkChange("forced_choice_while_thinking", False)
    is_other_word = choice == "required" and refusal.says(
        r"(?:one of|should be|expected)\b.{0,80}['\"`]any\b"
    )
    return QuirkChange("required_word", "any" if is_other_word else "auto")


def _asks_to_think(sent: Mapping[str, Any]) -> bool:
    return any(
        name in sent
        for name in ("reasoning_effort", "reasoning", "thinking", "enable_thinking", "chat_template_kwargs")
    )


def _roles(refusal: _Refusal) -> QuirkChange | None:
    roles = [message.get("role") for message in messages_of(refusal.sent)]
    is_about_role = re.search(r"messages\W{0,3}\d+\W{1,3}role|\brole\b", f"{refusal.param} {refusal.text}")
    if refusal.says(r"system message must be (?:at the beginning|the first)") and "system" in roles[1:]:
        return QuirkChange("leading_system_only", True)
    if "system" in roles[1:] and refusal.says(
        r"unexpected role '?system'? after|invalid (?:message )?role:? '?system"
    ):
        return QuirkChange("leading_system_only", True)
    if refusal.says(r"roles must alternate"):
        return QuirkChange("strict_alternation", True)
    if refusal.says(r"unexpected role '?user'? after role '?tool") and "tool" in roles:
        return QuirkChange("text_after_tool_joins_it", True)
    if "developer" in roles and (refusal.mentions("developer") or is_about_role):
        return QuirkChange("system_role", "system")
    if roles[:1] == ["system"] and is_about_role and refusal.says(r"does not support '?system\b"):
        return QuirkChange("system_role", "developer")
    return None


def _tool_ids(refusal: _Refusal) -> QuirkChange | None:
    if refusal.says(r"tool call id\b.{0,120}\blength of 9\b"):
        return QuirkChange("tool_id_style", "mistral")
    if re.search(r"tool_calls?\W?.{0,12}id", refusal.param) and refusal.says(r"string too long"):
        return QuirkChange("tool_id_style", "openai")
    return None


def _tools(refusal: _Refusal) -> QuirkChange | None:
    if not refusal.sent.get("tools"):
        return None
    if refusal.names("tools") and refusal.says(r"too long|too many|at most"):
        limit = _COUNT_LIMIT.search(refusal.text)
        if limit and not _calls_tool_behind(int(limit[1]), refusal.sent):
            return QuirkChange("max_tools", int(limit[1]))
    if refusal.says(
        r"unknown name \"?[$\w]{1,64}\"? at '?(?:tools|request\.tools)"
        r"|(?:additionalProperties|\$schema|\$ref|oneOf|anyOf|const|exclusiveM\w{1,16}|propertyNames)\b['\"`]? ?"
        r".{0,40}(?:not supported|unsupported|not allowed|not permitted)"
        r"|unsupported .{0,40}(?:additionalProperties|\$schema|\$ref)"
    ):
        return QuirkChange("schema_style", "gemini")
    for style, pattern in _STYLES:
        if refusal.says(pattern):
            return QuirkChange("schema_style", style)
    return None


def _calls_tool_behind(limit: int, sent: Mapping[str, Any]) -> bool:
    """Whether the history calls a tool that a limit on the number of tools would drop."""
    dropped = {_name_of(tool) for tool in sent["tools"][limit:]}
    calls = [call for message in messages_of(sent) for call in message.get("tool_calls") or ()]
    return not dropped.isdisjoint(_name_of(call) for call in calls)


def _name_of(tool: Any) -> str:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    return name if isinstance(name, str) else ""


#: Schema styles by the error texts of servers that require them.
_STYLES = (
    ("moonshot", r"moonshot flavored json schema"),
    ("grammar", r"failed to parse grammar|pattern must start with|json schema conversion failed"),
    ("openai", r"array schema missing items|not have 'oneof'/'anyof'"),
)


def _parts(refusal: _Refusal) -> QuirkChange | None:
    kinds = {part.get("type") for part in content_parts(refusal.sent)}
    if "image_url" in kinds and refusal.says(
        r"(?:does not|doesn't|not) support (?:image|vision|multimodal)"
        r"|image(?:s| input)? (?:is|are) not supported"
        r"|image_url is only supported by|support image input|unknown variant `?image_url"
        r"|(?:unsupported|invalid) content (?:part )?type.{0,60}image_url|at most 0 image"
        r"|not a multimodal model|content must be a string|no multimodal|does not have vision"
        r"|content[._ ]?(?:part )?type (?:is )?(?:invalid|not supported|unsupported)|expected (?:only )?text\b"
    ):
        return QuirkChange("vision", False)
    if "file" in kinds and refusal.says(
        r"unknown variant `?file\b"
        r"|(?:unsupported|invalid) (?:content (?:part )?type|value).{0,40}'?\bfile\b"
        r"|(?:file|pdf)s?(?: input)? (?:is|are) not supported|(?:does not|doesn't|not) support (?:file|pdf)"
    ):
        return QuirkChange("files", False)
    return None


def _cache_control(refusal: _Refusal) -> QuirkChange | None:
    if not refusal.mentions("cache_control") and "cache_control" not in refusal.param:
        return None
    is_sent = any("cache_control" in part for part in content_parts(refusal.sent))
    return QuirkChange("cache_control", False) if is_sent else None


#: Rules about capabilities precede rules about parameters: texts about images also name `messages`.
_RULES: tuple[Callable[[_Refusal], QuirkChange | None], ...] = (
    _parts,
    _roles,
    _value_to_send,
    _reasoning_history,
    _tool_ids,
    _tools,
    _tool_choice,
    _output_limit_name,
    _switch,
    _effort,
    _thinking,
    _response_format,
    _sampling,
    _stop,
    _cache_control,
)


# -- the request


def messages_of(sent: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the messages of a request body that are objects."""
    messages = sent.get("messages")
    return [each for each in messages if isinstance(each, Mapping)] if isinstance(messages, list) else []


def content_parts(sent: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the content parts of all messages."""
    for message in messages_of(sent):
        content = message.get("content")
        if isinstance(content, list):
            yield from (part for part in content if isinstance(part, Mapping))


# -- YAML


def _yaml(value: Any) -> str:
    """Return `value` in flow style."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_yaml(item) for item in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_yaml(key)}: {_yaml(item)}" for key, item in value.items()) + "}"
    # `no` and `on` would be booleans to older YAML readers; no value is such a word.
    return str(value)
