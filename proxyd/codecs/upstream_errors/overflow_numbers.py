"""Extract token counts from an error text, identified by the words around them.

A count is the limit, the input or the output by the nearest word before it that says so ("maximum", "prompt has",
"completion"), else by the words after it ("exceeds"). The input must then exceed the limit; otherwise one of the
numbers was misread, and only certain ones are returned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["COUNT", "Counts", "number", "read_counts"]

#: A token count as servers write it: 131072, 131,072 or 131_072. Thirteen digits are no token count.
COUNT = r"(?<![\d.])(?:\d{1,3}(?:[,_]\d{3}){1,3}|\d{1,12})(?!\d)"

#: Plausible windows.
_SMALLEST_LIMIT = 64
_LARGEST_LIMIT = 1_000_000_000

#: Smallest input given without its limit; smaller numbers are statuses and positions.
_SMALLEST_INPUT = 1000

#: Counts of one text that are read.
_MAX_COUNTS = 12

#: A count that is not part of a name, a version, a date or a decimal; 9351.0 is a count.
_STANDALONE = re.compile(
    rf"(?<![A-Za-z0-9_./#-])(?:{COUNT})(?=\.0\b|\.(?!\d)|-tokens?\b|[^A-Za-z0-9_.%-]|$)", re.ASCII
)

#: Characters before and after a count that are searched for its role.
_BEFORE = 90
_AFTER = 40

_CUES = re.compile(
    r"(?P<limit>max(?:imum)?|limit(?:ed|s)?|only|just|up to|supports?|allow(?:ed|s)|windows?|size|n_?ctx|ctx|than"
    r"|most|capacity|exceed(?:s|ed|ing)?|model_len|<=|[>≤/]|最大|上限|限制|超出|超过|最多|支持|窗口)"
    r"|(?P<output>completion|outputs?|max_?(?:completion_|output_|new_)?tokens|generat\w{0,5}|new|输出|生成)"
    r"|(?P<input>prompts?|inputs?|messages|requested|requests?|passed|given|provided|got|received|contains?|has|ha[dv]e?|resulted"
    r"|sent|actual|current|estimated|used|needs?|requires?|total|are|输入|请求|当前|实际|消息|提示词|对话)"
    r"|(?P<other>id|code|status|index|version|error|line|column)",
    re.IGNORECASE,
)
_NAME_GAP = re.compile(r"(?: number of)?[ _]")
_LATIN_CUE = re.compile(r"[A-Za-z_]")
_INPUT_AFTER = re.compile(
    r"[^\d.]{0,30}?(?:exceed|is (?:longer|larger|greater|too)|are (?:more|too)|>|超出|超过|大于"
    r"|in (?:the|your) (?:messages|prompt))|(?: text)?[ ,)]{0,3}(?:input|prompt) tokens?",
    re.IGNORECASE,
)
_PASSIVE = re.compile(r"(?: tokens?)?\)? (?:was |is |has been )?exceeded\b", re.IGNORECASE)
_OUTPUT_AFTER = re.compile(
    r"(?: tokens?)?[ ,]{0,2}(?:for|in|of) (?:the )?(?:completion|output)|[ ,)]{0,3}(?:output|completion|new) tokens?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Counts:
    """Token counts of a request that does not fit, None where the text gave none; `total` is input and output."""

    limit: int | None = None
    input: int | None = None
    output: int | None = None
    total: int | None = None


def number(text: str) -> int:
    """Return the value of a count."""
    return int(text.replace(",", "").replace("_", ""))


def read_counts(text: str) -> Counts:
    """Read the counts in `text`, which says that a prompt is too long; the caller truncates it."""
    found: list[tuple[str, int]] = []
    for place, match in enumerate(_STANDALONE.finditer(text)):
        if place == _MAX_COUNTS:
            break
        value = number(match[0])
        if value >= _SMALLEST_LIMIT and match[0][0] != "0":
            found.append((_role(text, match.start(), match.end()), value))
    limits = [value for role, value in found if role == "limit" and value <= _LARGEST_LIMIT]
    inputs = [value for role, value in found if role == "input"]
    outputs = [value for role, value in found if role == "output"]
    if not limits:
        # Two bare numbers, the larger one first, are the input and the limit.
        bare = [value for role, value in found if role in ("", "input")]
        if len(bare) == 2 and bare[0] > bare[1] and not outputs:
            return Counts(limit=bare[1], input=bare[0])
        return Counts(input=inputs[0]) if len(inputs) == 1 and inputs[0] >= _SMALLEST_INPUT else Counts()
    limit = min(limits)
    for total in inputs:  # "you requested 5000 tokens (4000 in the messages, 1000 in the completion)"
        for part in inputs:
            for output in outputs:
                if part + output == total:
                    return Counts(limit, part, output)
    if not inputs:
        if len(limits) == 2 and limits[0] > limits[1]:  # "(5910 / 4095)"
            return Counts(limits[1], limits[0])
        return Counts(limit) if len(set(limits)) == 1 else Counts()
    used = next((value for value in inputs if value > limit), inputs[0])
    if used > limit:
        return Counts(limit, used)
    if outputs and used + outputs[0] > limit:
        return Counts(limit, used, outputs[0])
    return Counts()


def _role(text: str, start: int, end: int) -> str:
    after = text[end : end + _AFTER]
    if _OUTPUT_AFTER.match(after):
        return "output"
    before = _role_before(text[max(0, start - _BEFORE) : start])
    if before == "limit" and _PASSIVE.match(after):
        return before
    return "input" if _INPUT_AFTER.match(after) else before


def _role_before(before: str) -> str:
    role, end_of_last = "", 0
    for cue in _CUES.finditer(before):
        if not _is_whole_word(before, cue):
            continue
        # In "max input tokens: 8192" and "maximum prompt length 4096" the first word decides.
        is_same_name = role == "limit" and _NAME_GAP.fullmatch(before, end_of_last, cue.start())
        if not is_same_name:
            role = cue.lastgroup or ""
        end_of_last = cue.end()
    return "" if role == "other" or before.endswith(" by ") else role


def _is_whole_word(text: str, cue: re.Match[str]) -> bool:
    if not _LATIN_CUE.match(cue[0][0]):
        return True
    following = text[cue.end() : cue.end() + 1]
    preceding = text[cue.start() - 1 : cue.start()] if cue.start() else ""
    return not (preceding.isascii() and preceding.isalpha()) and not (
        following.isascii() and following.isalpha()
    )
