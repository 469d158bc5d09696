"""Read a refusal of an upstream: its text, what it names, and the request that it is about."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from proxyd.codecs.upstream_errors.error_envelopes import ErrorDetails, parse_error_body

__all__ = [
    "UNKNOWN",
    "QuirkChange",
    "Refusal",
    "content_parts",
    "count_limit",
    "messages_of",
    "models_yaml_line",
    "read_refusal",
    "status_of_refusal",
]

#: OpenRouter uses 404 for "no provider takes this", llama.cpp 500 for templates and for images without a projector.
_STATUSES = frozenset({400, 404, 422, 500, 501, 502})
#: A gateway's error of another status that repeats the refusal of the upstream behind it.
_REPEATED = re.compile(
    r"bad_?request_?error|invalid_request_error|INVALID_ARGUMENT|\bstatus(?:[ _]code)?\W{0,3}4(?:00|22)\b"
    r"|\b4(?:00|22) (?:Bad Request|Unprocessable)|UnsupportedParamsError",
    re.IGNORECASE,
)

#: Longest parts of a message and of a parameter's name that are read.
_MAX_JUDGED_CHARS, _MAX_PARAM_CHARS = 2000, 200

#: A text that names a parameter without one of these words may be about anything.
_REFUSED = re.compile(
    r"unsupported|not (?:\w{1,12} )?(?:supported|enabled|available)|n[o']t support|unknown|unrecogni[sz]ed"
    r"|unexpected|extra[ _]|not permitted"
    r"|not allowed|invalid|unavailable|is deprecated|only|cannot|can't|not compatible|incompatible|too (?:long"
    r"|many)|must"
    r"|should|does not take|\bset\b.{1,40}\bto\b|please use|not one of|not an? |at most|no endpoints found"
    r"|mandatory|failed to|conversion failed|missing|required|expected|jinja|restricted|corrupted|maximum|exceed"
    r"|greater than|less than|consecutive"
    r"|alternate|multiple|features|grammar|schema|too many|limit|range|unable to"
    r"|不支持|不合法|非法|无效|错误|不能|不可|必须|缺少|仅支持|只支持|只能|超过|超出|最多|有误",
    re.IGNORECASE,
)
#: What follows are the names and values that would be taken.
_ALTERNATIVES = re.compile(
    r",?\s{0,8}\(?(?:expected one of|did you mean|supported (?:fields|parameters) are)\b.*",
    re.IGNORECASE | re.DOTALL,
)

#: Words for an unknown parameter, as opposed to an invalid value.
UNKNOWN = re.compile(
    r"unsupported parameter|unknown|unrecogni[sz]ed|extra[ _]|not permitted|not supported|is deprecated"
    r"|n[o']t support parameter|unexpected|unsupported|不支持|invalid param|invalid argument",
    re.IGNORECASE,
)

_COUNT_LIMIT = re.compile(
    r"(?:max(?:imum)? length|at most|up to|no more than|max(?:imum)?(?: [a-z]{1,12}){0,4}(?: of| is)?"
    r"|less than or equal to|<=|最多(?:支持)?|上限[为是]?)"
    r"\W{0,3}(\d{1,4})\b",
    re.IGNORECASE,
)

#: As many words in a row that are in the prompt are a quotation.
_QUOTED_WORDS = 5


@dataclass(frozen=True, slots=True)
class QuirkChange:
    """An override of one `Dialect` field, and of those that have to change with it.

    Values are written as under ``quirks:`` in models.yaml.

    Args:
        is_lasting: it belongs to the upstream, not to one conversation, and is kept where it helps.
    """

    quirk: str
    value: Any
    also: tuple[QuirkChange, ...] = ()
    is_lasting: bool = True

    @property
    def quirks(self) -> dict[str, Any]:
        """All overrides by name."""
        return {each.quirk: each.value for each in (self, *self.also)}


@dataclass(frozen=True, slots=True)
class Refusal:
    """A refusal and the request it is about, the input of the rules.

    Args:
        status: the upstream's; 400 for a gateway's error that repeats a refusal.
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
        return name in self.sent and self.is_about(name)

    def is_about(self, name: str) -> bool:
        """Whether the refusal is about `name`, sent or not."""
        if self.param and re.fullmatch(r"[\w.\[\]*-]+", self.param):
            return re.match(rf"{_spellings(name)}(?![\w-])", self.param, re.IGNORECASE) is not None
        return self.mentions(name)

    def mentions(self, name: str) -> bool:
        """Whether the text has `name`, in any spelling, before the names that would be taken."""
        pattern = rf"(?<![\w-]){_spellings(name)}(?![\w-])"
        subject = _ALTERNATIVES.sub("", self.text)
        return re.search(pattern, subject or self.text, re.IGNORECASE) is not None

    def says(self, pattern: str) -> bool:
        return re.search(pattern, self.text, re.IGNORECASE) is not None


@functools.lru_cache(maxsize=256)
def _spellings(name: str) -> str:
    """Return a pattern for `name` in snake case, camel case, and as words."""
    return re.escape(name).replace("_", "[_ -]?")


def count_limit(text: str) -> int | None:
    """Return the number of a "at most N"."""
    found = _COUNT_LIMIT.search(text)
    return None if found is None else int(found[1])


def read_refusal(
    status: int, body: bytes, sent: Mapping[str, Any], known: Mapping[str, Any]
) -> Refusal | None:
    """Return the refusal in an upstream's error; None where it is not about the request, or says nothing.

    Args:
        status, body: of the upstream's error.
        sent: the body of the request as it was sent.
        known: quirks that were learned before and were in force for it.
    """
    error = parse_error_body(body)
    status = status_of_refusal(status, error)
    if status not in _STATUSES:
        return None
    text = _without_quotations(error.message[:_MAX_JUDGED_CHARS], sent)
    if not text or not _REFUSED.search(text):
        return None
    param = "" if error.param.lower() in ("none", "null") else error.param[:_MAX_PARAM_CHARS]
    return Refusal(status, text, param, sent, known)


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


def models_yaml_line(change: QuirkChange) -> str:
    """Return the line of a models.yaml entry that makes `change` permanent."""
    return f"quirks: {_yaml(change.quirks)}"


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
