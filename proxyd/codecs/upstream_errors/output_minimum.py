"""Recognise refusals of a `max_tokens` that is too small.

Models that think before they write refuse a limit of a few tokens. Clients ask for one token to see whether a model
exists (docs/spec/claude-code.md#model-probe), and expect what Anthropic's API returns: a response that has reached its
limit. The wordings, of November 2026 (docs/spec/vendors.md#small-limits)::

    Could not finish the message because max_tokens or model output limit was reached.
    Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.
"""

from __future__ import annotations

import re

from proxyd.codecs.upstream_errors.error_envelopes import parse_error_body

__all__ = ["FEW_TOKENS", "is_too_few_tokens"]

#: The largest limit that is taken for "a few": the least that OpenAI's models accept.
FEW_TOKENS = 16
_MAX_JUDGED_CHARS = 2000
_TOO_FEW = re.compile(
    r"could not finish the message because max_(?:completion_|output_)?tokens"
    r"|max_(?:completion_|output_)?tokens\W{1,5}(?:integer below minimum|must be (?:at least|greater than))",
    re.IGNORECASE,
)


def is_too_few_tokens(status: int, body: bytes, max_tokens: object) -> bool:
    """Return whether a refusal says that its request allowed too few tokens of output.

    Args:
        status, body: of the upstream's error.
        max_tokens: the limit that the client asked for.
    """
    if status not in (400, 422) or type(max_tokens) is not int or max_tokens > FEW_TOKENS:
        return False
    return _TOO_FEW.search(parse_error_body(body).message[:_MAX_JUDGED_CHARS]) is not None
