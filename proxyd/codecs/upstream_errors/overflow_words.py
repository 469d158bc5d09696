"""Decide whether an error text says that the prompt does not fit, in whatever wording.

A text is read sentence by sentence, as words. An overflow names a place (the context, the prompt, the messages), a
measure (tokens, length, window) and a comparison (exceeds, longer than, at most, reduce). Each rule of
`_states_overflow` is one combination of such words, in any order. Texts about other limits are excluded: rates and
budgets by words anywhere in the text, images, files, strings and output limits by words in the sentence.

Chinese, Japanese and Korean have no blanks between words; there the combinations are found by distance.

Time is linear: the text is truncated first, and no pattern repeats without a bound.
"""

from __future__ import annotations

import re
from itertools import pairwise

__all__ = ["MAX_SCANNED", "says_overflow", "sentences_of"]

#: Characters of an upstream's text that are scanned. The longest known wording has 400.
MAX_SCANNED = 8192

#: Limits of a plan or an account, and timeouts. Such texts mention tokens, limits and "exceeded" as well.
_OTHER_CAUSE = re.compile(
    r"rate.?limit|limit(?:ing)? rate|too many requests|concurren|throttl|quota|please wait|wait a bit|slow down"
    r"|high demand"
    r"|\b(?:per|a|each|every|/) ?(?:second|minute|min|hour|day|week|month)\b|\b(?:daily|weekly|monthly)\b"
    r"|\b[tr]p[mdsh]\b|time ?frame|time ?window|time ?limit|time[sd]?[- ]?out|deadline"
    r"|credits?\b|balance|billing|afford|payment|paid|spend|subscription|\bplans?\b|usage (?:limit|tier)"
    r"|extra usage|budget[ _]tokens|\bfree (?:tier|trial)|top.?up|recharge|arrears"
    r"|overloaded|capacity exceeded|out of capacity|\baccount\b|\borgani[sz]ation\b"
    r"|每[分秒天日小月]|频率|频繁|限流|限速|并发|额度|余额|配额|套餐|欠费|充值|用量|次数|排队|敏感|违规|免费",
    re.IGNORECASE,
)

#: Parameters that limit the output. A text about them alone is no overflow.
_OUTPUT_PARAMETER = re.compile(
    r"\bmax_?(?:completion_?|output_?|new_?|generated?_?)?tokens?(?:_to_sample)?\b(?<!max tokens)",
    re.IGNORECASE,
)

_URL = re.compile(r"https?://[^\s\"'<>)]{1,500}", re.IGNORECASE)

#: Keywords of JSON Schema are about strings and lists, whatever the words around them.
_SCHEMA_KEYWORD = re.compile(r"\b(?:max|min)(?:Length|Items|Properties)\b")

#: Splits "contextLength" and "HTTPError" into two words each.
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

#: Words, numbers, and the signs of comparison.
_WORD = re.compile(r"[a-z]{1,40}|\d[\d,_]{0,15}k?|<=|>=|[<>+\[]|-\d", re.IGNORECASE)

_SENTENCE_END = re.compile(r"(?<=[.!?;])\s{1,9}|[。；！？\n\r]{1,9}")

_CONTEXT = frozenset({"context", "contexts", "ctx"})
_PROMPT = frozenset(
    {
        "prompt",
        "prompts",
        "input",
        "inputs",
        "message",
        "messages",
        "conversation",
        "request",
        "requests",
        "query",
        "history",
        "chat",
        "transcript",
    }
)
_TOKENS = frozenset({"token", "tokens"})
_LENGTH = frozenset({"length", "lengths", "len"})
_MEASURE = (
    frozenset({"window", "windows", "size", "limit", "limits", "budget", "capacity"}) | _LENGTH | _TOKENS
)
_EXCEED = frozenset(
    {
        "exceed",
        "exceeds",
        "exceeded",
        "exceeding",
        "execeeds",
        "overflow",
        "overflows",
        "overflowed",
        "overflowing",
        "surpass",
        "surpasses",
        "surpassed",
        "beyond",
        "overrun",
        "oversized",
        "overlong",
    }
)
_SPENT = frozenset({"full", "reached", "exhausted"})
_MODEL = frozenset({"model", "llm"})
_THAN = frozenset({"longer", "larger", "greater", "bigger", "more", "higher", "over", "above"})
_UNDER = frozenset({"less", "fewer", "smaller", "shorter", "below", "lower"})
_DEMANDS = frozenset({"must", "should", "be"})
_SIGNS = frozenset({">", ">=", "<=", "<"})
_SUPPORT = frozenset({"supports", "support", "supported"})
_TOO = frozenset({"long", "large", "many", "big", "much", "lengthy"})
_REDUCE = frozenset(
    {"reduce", "reduced", "shorten", "shortened", "truncate", "trim", "decrease", "shorter", "compress"}
)
_MOST = frozenset(
    {
        "maximum",
        "max",
        "limit",
        "limits",
        "limited",
        "allowed",
        "allows",
        "supported",
        "supports",
        "most",
        "up",
    }
)

#: Units and objects that have lengths and limits of their own.
_OTHER_OBJECT = frozenset(
    {
        "string",
        "strings",
        "array",
        "arrays",
        "items",
        "image",
        "images",
        "audio",
        "tools",
        "functions",
        "characters",
        "character",
        "chars",
        "byte",
        "bytes",
        "mb",
        "kb",
        "gb",
        "mib",
        "pixel",
        "pixels",
        "dimension",
        "dimensions",
        "file",
        "files",
        "page",
        "pages",
        "header",
        "headers",
        "uri",
        "url",
        "field",
        "seconds",
        "duration",
        "stop",
        "name",
        "description",
        "schema",
        "depth",
        "payload",
        "upload",
        "body",
        "temperature",
        "budget",
    }
)

#: Within this many characters of each other, in the scripts without blanks.
_NEAR = r"[^。；！？\n]{0,16}"
_CJK_OVER = (
    r"(?:超出|超过|超過|超长|超長|超限|超量|超了|超え|超标|过长|過長|太长|过大|太大|过多|太多|大于|高于|不能超|不得超|上限"
    r"|長すぎ|多すぎ|초과|너무 ?(?:길|많|큽|크)|넘)"
)
_CJK_PLACE = r"(?:上下文|語境|コンテキスト|文脈|컨텍스트|문맥)"
_CJK_PROMPT = (
    r"(?:输入|輸入|提示词|提示詞|prompt|对话|對話|消息|訊息|请求|請求|会话|會話|历史|文本|内容|入力|プロンプト|メッセージ|リクエスト"
    r"|입력|프롬프트|메시지|요청)"
)
_CJK_TOKENS = r"(?:tokens?|令牌|词元|トークン|토큰)"
_CJK = re.compile(
    rf"{_CJK_PLACE}{_NEAR}{_CJK_OVER}|{_CJK_OVER}{_NEAR}{_CJK_PLACE}"
    rf"|(?:压缩|缩短|精简|减少|清空|清除){_NEAR}{_CJK_PLACE}"
    rf"|{_CJK_TOKENS}{_NEAR}{_CJK_OVER}|{_CJK_OVER}{_NEAR}{_CJK_TOKENS}"
    rf"|{_CJK_PROMPT}(?:的?(?:总|最大)?(?:长度|長度|字数|が|이|가)?) ?(?:已经?|都)?{_CJK_OVER}"
    rf"|{_CJK_PROMPT}{_NEAR}长度{_NEAR}{_CJK_OVER}",
    re.IGNORECASE,
)
_CJK_OTHER = re.compile(
    r"图片|图像|圖片|参考图|文件|音频|视频|像素|字段|字符|字节|画像|ファイル|文字数|이미지|파일|글자",
    re.IGNORECASE,
)
_CJK_OUTPUT = re.compile(r"max_?\w{0,12}tokens|输出|輸出|出力|출력|生成", re.IGNORECASE)
_CJK_INPUT = re.compile(rf"{_CJK_PLACE}|{_CJK_PROMPT}|总", re.IGNORECASE)
_HAS_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")

_OUTPUT = "outputparameter"


def says_overflow(text: str) -> bool:
    """Whether `text`, a message or an error code, says that the prompt is too long for the model."""
    cut = text[:MAX_SCANNED]
    plain = _URL.sub(" ", cut)
    if _OTHER_CAUSE.search(plain):
        return False
    sentences = sentences_of(plain)
    if any(_states_overflow(words) for words in sentences):
        return True
    for first, second in pairwise(sentences):
        if _states_window(first) and _states_use(second):
            return True
        if _says_too_large(first) and _states_limit_in_tokens(second):
            return True
    return bool(_HAS_CJK.search(plain)) and _states_overflow_in_cjk(plain)


def sentences_of(text: str) -> list[list[str]]:
    """Split `text` into sentences of words in lower case; names of parameters are words as well."""
    marked = _OUTPUT_PARAMETER.sub(f" {_OUTPUT} ", text[:MAX_SCANNED])
    split = _CAMEL.sub(" ", _SCHEMA_KEYWORD.sub(" string ", marked))
    return [[word.lower() for word in _WORD.findall(part)] for part in _SENTENCE_END.split(split)]


def _states_overflow_in_cjk(text: str) -> bool:
    return any(_CJK.search(part) and not _is_other_in_cjk(part) for part in re.split(r"[。；！？\n]", text))


def _is_other_in_cjk(part: str) -> bool:
    """Whether a sentence is about an object with a length of its own, or about the output alone."""
    if _CJK_OTHER.search(part) and not re.search(rf"{_CJK_TOKENS}|{_CJK_PLACE}", part, re.IGNORECASE):
        return True
    return bool(_CJK_OUTPUT.search(part)) and not _CJK_INPUT.search(part)


def _states_overflow(words: list[str]) -> bool:
    """Whether one sentence states an overflow."""
    found = frozenset(words)
    has_context = _names_context(words)
    has_prompt = not found.isdisjoint(_PROMPT)
    has_tokens = not found.isdisjoint(_TOKENS)
    has_length = not found.isdisjoint(_LENGTH)
    has_most = not found.isdisjoint(_MOST)
    is_other = not found.isdisjoint(_OTHER_OBJECT) and not (has_tokens or has_context)
    if is_other or {"small", "minimum"} & found:
        return False
    if _OUTPUT in found and not has_prompt and not has_context and "total" not in found:
        return "-" in "".join(words) and "got" in found  # the room left for the output is negative
    exceeds = not found.isdisjoint(_EXCEED)
    is_over = exceeds or _is_compared(words)
    is_too_long = _is_too_long(words)
    if has_context and (exceeds or is_too_long or _does_not_fit(words) or not found.isdisjoint(_SPENT)):
        return True
    if _OUTPUT in found and not has_prompt:
        return False
    if has_context and (is_over or (_counts(words) and has_most and "is" not in found)):
        return True
    if has_prompt and (is_too_long or _does_not_fit(words)) and not _is_bare_request(found):
        return True
    if has_prompt and has_tokens and is_over:
        return True
    if has_prompt and has_length and is_over:
        return True
    is_of_output = bool(found & {"requested", "output", "completion", "generated"})
    if has_tokens and has_most and (is_over or not found.isdisjoint(_SPENT)) and not is_of_output:
        return True
    if not found.isdisjoint(_MODEL) and (is_too_long or (has_length and exceeds)) and not is_of_output:
        return True
    if (
        has_prompt
        and has_length
        and has_tokens
        and found & {"maximum", "max"}
        and _counts(words)
        and not is_of_output
    ):
        return True
    if has_tokens and {"too", "many"} <= found:
        return True
    if has_prompt and has_length and has_most and _counts(words) >= 2:
        return True
    if has_prompt and has_tokens and has_context and _counts(words) >= 2:
        return True
    if (
        "model" in found
        and exceeds
        and {"limit", "limits"} & found
        and {"input", "prompt", "messages"} & found
    ):
        return True
    return has_prompt and (has_length or has_tokens) and not found.isdisjoint(_REDUCE)


def _names_context(words: list[str]) -> bool:
    """Whether the model's context is mentioned: the word near a measure, or a parameter's name for it."""
    for place, word in enumerate(words):
        if word in _CONTEXT:
            near = words[max(0, place - 3) : place + 4]
            if word == "ctx" or not _MEASURE.isdisjoint(near) or {"maximum", "max"} & set(near):
                return True
            if {"too", "exceeded", "exceeds", "overflow"} & set(near):
                return True
        elif word in _LENGTH and place and words[place - 1] in ("seq", "sequence", "model"):
            return True
    return False


def _is_compared(words: list[str]) -> bool:
    """Whether the sentence says that something exceeds its limit."""
    is_demanded = False  # "must be less than", "should be between"
    for place, word in enumerate(words):
        following = words[place + 1] if place + 1 < len(words) else ""
        if word in _DEMANDS:
            is_demanded = True
        if word in _SIGNS or (word in _THAN and "than" in words[place + 1 : place + 4]):
            return True
        is_bound = word in ("[", "between") or (word in _UNDER and following in ("than", "tokens"))
        if is_demanded and is_bound:
            return True
        if word in ("only", "up") and not _SUPPORT.isdisjoint(words[max(0, place - 2) : place + 3]):
            return True
        if word == "over" and following in ("limit", "the", "maximum", "max"):
            return True
    return False


def _is_too_long(words: list[str]) -> bool:
    return any(first in ("too", "very") and second in _TOO for first, second in pairwise(words))


def _does_not_fit(words: list[str]) -> bool:
    found = set(words)
    if {"fit", "fits"} & found and {"not", "t", "cannot", "doesn", "won", "can", "to"} & found:
        return True
    return bool(
        {"enough", "insufficient"} & found and {"room", "space", "tokens", "context", "length"} & found
    )


def _is_bare_request(found: frozenset[str]) -> bool:
    """Whether "too large" may mean bytes: a request, and nothing that has tokens."""
    return "request" in found and not found & {
        "prompt",
        "input",
        "token",
        "tokens",
        "model",
        "messages",
        "conversation",
    }


def _counts(words: list[str]) -> int:
    return sum(1 for word in words if word[0].isdigit() and len(word) > 2)


def _states_window(words: list[str]) -> bool:
    """Whether a sentence gives the size of the context: "This model's maximum context length is 4096 tokens"."""
    return _OUTPUT not in words and _names_context(words) and _counts(words) > 0


def _says_too_large(words: list[str]) -> bool:
    return not _PROMPT.isdisjoint(words) and _is_too_long(words)


def _states_limit_in_tokens(words: list[str]) -> bool:
    """Whether a sentence gives a limit and its unit: "Max size: 4000 tokens"."""
    return (
        _counts(words) > 0
        and not _TOKENS.isdisjoint(words)
        and not _MOST.isdisjoint(words)
        and _OUTPUT not in words
    )


def _states_use(words: list[str]) -> bool:
    """Whether a sentence gives what was needed: "However, you requested 5000 tokens"."""
    return _counts(words) > 0 and bool(
        {
            "requested",
            "resulted",
            "however",
            "passed",
            "sent",
            "contains",
            "has",
            "take",
            "request",
            "given",
            "got",
        }
        & set(words)
    )
