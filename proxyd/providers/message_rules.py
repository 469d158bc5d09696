"""Rules for refusals of messages: their roles and order, empty contents, images, files, results of tools.

A rule takes a `Refusal` and returns the quirk that avoids it, or None.
"""

from __future__ import annotations

import itertools
import re

from proxyd.providers.refusals import QuirkChange, Refusal, content_parts, messages_of

__all__ = ["cache_control", "empty_content", "parts", "roles", "single_calls", "tool_message_names"]

_NO_SYSTEM = re.compile(
    r"system(?: role| messages?| prompts?)?\b[^.]{0,20}(?:not|n't) (?:be )?supported|(?:not"
    r"|n't) support (?:the )?['\"]?system",
    re.IGNORECASE,
)
_LATE_SYSTEM = re.compile(
    r"system messages? (?:must|should|can|may) (?:only )?(?:be|come|appear)[^.]{0,30}(?:beginning|first|start)"
    r"|only the first message can|(?:multiple|more than one|only one|a single) system|unexpected role '?system'? after"
    r"|invalid (?:message )?role:? '?system|got system at|system['\"]? (?:role )?(?:can|must) only"
    r"|system\W{0,3}消息只能|system\W{0,3}(?:必须|只能)",
    re.IGNORECASE,
)
_NEIGHBOURS = re.compile(
    r"roles must (?:be )?alternat|should alternate|must alternate|alternat(?:e|ing) (?:between|user|role)"
    r"|consecutive (?:user |assistant )?(?:messages|roles|turns)|same role|even index|odd number",
    re.IGNORECASE,
)


def roles(refusal: Refusal) -> QuirkChange | None:
    sent = [message.get("role") for message in messages_of(refusal.sent)]
    has_late_system = "system" in sent[1:] or "developer" in sent[1:]
    is_about_role = re.search(r"messages\W{0,3}\d+\W{1,3}role|\brole\b", f"{refusal.param} {refusal.text}")
    if has_late_system and _LATE_SYSTEM.search(refusal.text):
        return QuirkChange("leading_system_only", True)
    has_neighbours = any(first == second != "tool" for first, second in itertools.pairwise(sent))
    if _NEIGHBOURS.search(refusal.text) and (has_neighbours or has_late_system or sent[:1] == ["assistant"]):
        also = (QuirkChange("leading_system_only", True),) if has_late_system else ()
        return QuirkChange("strict_alternation", True, also)
    if _NEIGHBOURS.search(refusal.text):
        return QuirkChange("strict_alternation", True)
    if refusal.says(r"unexpected role '?user'? after role '?tool") and "tool" in sent:
        return QuirkChange("text_after_tool_joins_it", True)
    if "developer" in sent and (refusal.mentions("developer") or is_about_role):
        return QuirkChange("system_role", "system")
    if sent[:1] == ["system"] and _NO_SYSTEM.search(refusal.text):
        # OpenAI's reasoning models say it of the role, templates without a system message of the message.
        is_openai = re.search(r"messages\W{0,3}\d+\W{1,3}role", f"{refusal.param} {refusal.text}")
        return QuirkChange("system_role", "developer" if is_openai else "user")
    return None


def single_calls(refusal: Refusal) -> QuirkChange | None:
    has_several = any(len(message.get("tool_calls") or ()) > 1 for message in messages_of(refusal.sent))
    is_refused = refusal.says(
        r"(?:single|one) tool.?calls?|(?:multiple|parallel|more than one) tool.?calls?[^.]{0,30}(?:not|n't)"
    )
    return QuirkChange("one_call_per_message", True) if has_several and is_refused else None


_ABOUT_CONTENT = re.compile(r"\bcontents?\b|\bmessage\b.{0,60}\bempty\b", re.IGNORECASE)


def empty_content(refusal: Refusal) -> QuirkChange | None:
    """Give messages that only call tools a content: an empty text, then one that is not."""
    sent = {
        message.get("content")
        for message in messages_of(refusal.sent)
        if message.get("tool_calls") and not isinstance(message.get("content"), list)
    }
    text = f"{refusal.param} {refusal.text}"
    if not _ABOUT_CONTENT.search(text):
        return None
    if None in sent and re.search(
        r"null|\bnil\b|\bnone\b|valid string|expected (?:a )?str|missing|required|must be (?:a )?str|不能为空|不可为空",
        text,
        re.IGNORECASE,
    ):
        return QuirkChange("empty_content", "")
    if {None, ""} & sent and re.search(r"empty|blank|at least|不能为空|不可为空", text, re.IGNORECASE):
        return QuirkChange("empty_content", ".")
    return None


def tool_message_names(refusal: Refusal) -> QuirkChange | None:
    results = [message for message in messages_of(refusal.sent) if message.get("role") == "tool"]
    if not results or all("name" in message for message in results):
        return None
    is_demanded = refusal.says(
        r"function_?response\.name|\bname\b.{0,40}(?:required|missing|empty).{0,60}\btool"
        r"|\btool\b.{0,60}(?:required|missing|must have).{0,30}\bname\b"
    )
    return QuirkChange("tool_message_names", True) if is_demanded else None


_NEGATIVE = (
    r"not (?:\w{1,12} ){0,2}(?:support|enabl|allow|accept|available|a |an )|n[o']t (?:support|have|accept|allow"
    r"|see)|unsupported"
    r"|unknown variant|invalid (?:content|type|value)|only|cannot|can't|no endpoints|missing|required|at most 0|无法"
    r"|不支持|must be a string|expected"
)
_IMAGE = r"image|vision|multi-?modal|\bvlm\b|picture|图片|图像|视觉|多模态"
_FILE = r"\bfiles?\b|\bpdfs?\b|\bdocuments?\b|文件|文档"
#: The image itself is wrong, not that there is one.
_BAD_DATA = re.compile(
    r"base64|decod|download|fetch|corrupt|dimension|pixel|\bbytes\b|\bmb\b|too large|too big|image format|mime"
    r"|media.?type"
    r"|unsupported image\b(?!s? input)|could not (?:process|load)|尺寸|格式|过大",
    re.IGNORECASE,
)
_TEXT_ONLY = re.compile(
    r"content.{0,40}(?:must|should) be a? ?string|value must be a string"
    r"|content[._ ]?(?:part )?type (?:is )?(?:invalid|not supported|unsupported)"
    r"|expected (?:only )?[`'\"]?(?:text|string)\b|expected a string|only (?:supports? )?text\b",
    re.IGNORECASE,
)


def parts(refusal: Refusal) -> QuirkChange | None:
    """Leave out images or files that the model does not take."""
    kinds = {part.get("type") for part in content_parts(refusal.sent)}
    if not {"image_url", "file"} & kinds or _BAD_DATA.search(refusal.text):
        return None
    is_negative = refusal.says(_NEGATIVE)
    if "image_url" in kinds and ((refusal.says(_IMAGE) and is_negative) or _TEXT_ONLY.search(refusal.text)):
        return QuirkChange("vision", False)
    if "file" in kinds and ((refusal.says(_FILE) and is_negative) or _TEXT_ONLY.search(refusal.text)):
        return QuirkChange("files", False)
    return None


def cache_control(refusal: Refusal) -> QuirkChange | None:
    is_sent = any("cache_control" in part for part in content_parts(refusal.sent))
    if not is_sent:
        return None
    is_named = refusal.mentions("cache_control") or "cache_control" in refusal.param
    return QuirkChange("cache_control", False) if is_named or _TEXT_ONLY.search(refusal.text) else None
