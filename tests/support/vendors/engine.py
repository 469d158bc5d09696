"""Rules, and vendors made of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

__all__ = ["Body", "Envelope", "Refusal", "Rule", "Vendor", "openai_envelope", "rule"]

Body = Mapping[str, Any]
#: Status, message and param of a refusal -> the JSON that carries it.
Envelope = Callable[[int, str, "str | None"], Any]


@dataclass(frozen=True)
class Refusal:
    """A vendor's answer to a request that it does not take.

    Args:
        rule: the name of the rule that was broken; not part of the response.
    """

    status: int
    body: Any
    rule: str


@dataclass(frozen=True)
class Rule:
    """One thing that is refused.

    Args:
        name: for tables and failures.
        source: the page that shows it, as a URL.
        finds: the vendor's words for what is wrong with a body, or None; the words may be a pair with the param.
        status: of the refusal.
        models: a regular expression searched in ``model``: the rule holds for these only.
    """

    name: str
    source: str
    finds: Callable[[Body], str | tuple[str, str] | None]
    status: int = 400
    models: str = ""

    def only(self, models: str) -> Rule:
        """The same rule, for some models."""
        return replace(self, models=models)


def rule(
    name: str,
    source: str,
    finds: Callable[[Body], str | tuple[str, str] | None],
    *,
    status: int = 400,
    models: str = "",
) -> Rule:
    """A `Rule`; sources of the form ``owner/repository#number`` are issues on GitHub."""
    found = re.fullmatch(r"([\w.-]+/[\w.-]+)#(\d+)", source)
    if found:
        source = f"https://github.com/{found[1]}/issues/{found[2]}"
    return Rule(name, source, finds, status, models)


def openai_envelope(status: int, message: str, param: str | None) -> Any:
    """OpenAI's own form."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}


@dataclass(frozen=True)
class Vendor:
    """A simulator.

    Args:
        name: of the profile in proxyd/providers that it stands for.
        models: names of models that show its families.
        rules: in the order in which the vendor looks.
        envelope: the form of its errors.
        key_header: the header that must carry a key; "" where none is needed.
    """

    name: str
    models: Sequence[str]
    rules: Sequence[Rule]
    envelope: Envelope = openai_envelope
    key_header: str = "authorization"

    def judge(self, body: Body, headers: Mapping[str, str] | None = None) -> Refusal | None:
        """The refusal of a request, with the rule's name; None where it is taken."""
        if headers is not None and self.key_header and not headers.get(self.key_header):
            return Refusal(401, self.envelope(401, "You didn't provide an API key.", None), "key")
        model = str(body.get("model", ""))
        for each in self.rules:
            if each.models and not re.search(each.models, model, re.IGNORECASE):
                continue
            found = each.finds(body)
            if found is not None:
                message, param = (found, None) if isinstance(found, str) else found
                return Refusal(each.status, self.envelope(each.status, message, param), each.name)
        return None

    def refusal(self, body: Body, headers: Mapping[str, str] | None = None) -> tuple[int, Any] | None:
        """Status and JSON of the refusal of a request; None where it is taken."""
        found = self.judge(body, headers)
        return None if found is None else (found.status, found.body)
