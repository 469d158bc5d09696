# ruff: noqa: E501 - the words of servers are not wrapped
"""The order and the contents of messages."""

from __future__ import annotations

from tests.support.vendors.reports import (
    EMPTY_CONTENT,
    FORMAT,
    IMAGE,
    NAMELESS,
    NULL_CONTENT,
    OURS,
    TWO_CALLS,
    Report,
    any_message,
    code,
    detail,
    gh,
    google,
    has,
    is_in,
    late_system,
    message,
    minimax,
    neighbours,
    part_of,
    with_tools,
)

__all__ = ["REPORTS"]

REPORTS: tuple[Report, ...] = (
    Report(
        gh("vllm-project/vllm#41114"),
        late_system,
        "System message must be at the beginning.",
        envelope=message,
    ),
    Report(
        gh("MiniMax-AI/MiniMax-M2#51"),
        late_system,
        "invalid params, chat content has invalid message role: system (2013)",
        envelope=minimax,
    ),
    Report(
        OURS,
        late_system,
        "Only the first message can have the role 'system'",
        capture="next_turn",
    ),
    Report(OURS, late_system, "Multiple system messages are not supported"),
    Report(OURS, late_system, "system 消息只能出现在第一条"),
    Report(
        OURS,
        late_system,
        "Expected user role after system, got system at index 2",
    ),
    Report(
        OURS,
        neighbours(lambda a, b: a == b == "user"),
        "After the (optional) system message(s), user or tool message(s) should alternate with assistant message(s).",
        capture="two_users",
    ),
    Report(
        OURS,
        neighbours(lambda a, b: a == b == "user"),
        "Consecutive messages with the same role are not allowed",
        capture="two_users",
    ),
    Report(
        OURS,
        neighbours(lambda a, b: a == b == "user"),
        "the role of message with even index in the messages must be user or function",
        capture="two_users",
        envelope=lambda t: {"error_code": 336006, "error_msg": t},
    ),
    Report(
        OURS,
        any_message(lambda m: m["role"] == "system"),
        "System role not supported",
        envelope=message,
    ),
    Report(
        OURS,
        any_message(lambda m: m["role"] == "system"),
        "Error: Jinja Exception: System role not supported",
        status=500,
    ),
    Report(
        OURS,
        any_message(lambda m: m["role"] == "system"),
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
        envelope=lambda t: {
            "error": {"message": t, "param": "messages[0].role", "code": "unsupported_value"}
        },
    ),
    Report(
        OURS,
        any_message(lambda m: m["role"] == "developer"),
        "Failed to deserialize the JSON body into the target type: messages[0].role: unknown variant `developer`, expected one of `system`, `user`, `assistant`, `tool` at line 1 column 60",
        status=422,
        envelope=detail,
        quirks={"system_role": "developer"},
    ),
    Report(
        gh("vllm-project/vllm#25108"),
        TWO_CALLS,
        "This model only supports single tool-calls at once!",
        capture="parallel_tools",
        envelope=message,
    ),
    Report(
        OURS,
        TWO_CALLS,
        "Error: Jinja Exception: This model only supports single tool-calls at once!",
        capture="parallel_tools",
        status=500,
    ),
    Report(
        OURS,
        NULL_CONTENT,
        "Invalid value for 'content': expected a string, got null.",
        envelope=lambda t: {"error": {"message": t, "param": "messages.[2].content"}},
        capture="bare_call",
    ),
    Report(
        OURS,
        NULL_CONTENT,
        "messages.2.content: none is not an allowed value",
        envelope=message,
        capture="bare_call",
    ),
    Report(
        OURS,
        NULL_CONTENT,
        "Input should be a valid string",
        status=422,
        envelope=lambda t: {
            "detail": [
                {
                    "type": "string_type",
                    "loc": ["body", "messages", 2, "assistant", "content"],
                    "msg": t,
                    "input": None,
                }
            ]
        },
        capture="bare_call",
    ),
    Report(
        OURS,
        NULL_CONTENT,
        "messages[2]: missing field `content` at line 1 column 300",
        status=422,
        envelope=detail,
        capture="bare_call",
    ),
    Report(OURS, NULL_CONTENT, "messages 中 content 字段不能为空", capture="bare_call"),
    Report(
        OURS,
        EMPTY_CONTENT,
        "Invalid request: message at position 2 with role 'assistant' must not be empty",
        capture="bare_call",
    ),
    Report(
        OURS,
        EMPTY_CONTENT,
        "invalid request: all elements in messages must have non-empty content",
        capture="bare_call",
    ),
    Report(
        gh("inference-gateway/inference-gateway#181"),
        NAMELESS,
        "* GenerateContentRequest.contents[2].parts[0].function_response.name: Name cannot be empty.",
        envelope=google,
    ),
    Report(OURS, NAMELESS, "messages[3].name is required for messages with role 'tool'"),
    Report(
        OURS,
        IMAGE,
        "The model is not a VLM (Vision Language Model). Please use text-only prompts.",
        capture="image",
        envelope=code,
    ),
    Report(
        OURS,
        IMAGE,
        "'messages.3' : for 'role:user' the following must be satisfied[('messages.3.content' : value must be a string)]",
        capture="image",
    ),
    Report(
        OURS,
        IMAGE,
        "This model does not support image inputs. Please use a model with vision capabilities.",
        capture="image",
    ),
    Report(OURS, IMAGE, "该模型不支持图片输入", capture="image", envelope=code),
    Report(
        OURS,
        IMAGE,
        "messages[3].content[1].type: image_url is not allowed, only text",
        capture="image",
    ),
    Report(OURS, IMAGE, "Multimodal inputs are not enabled for this deployment", capture="image"),
    Report(
        OURS,
        IMAGE,
        "Failed to deserialize the JSON body into the target type: messages[3]: unknown variant `image_url`, expected `text` at line 1 column 99",
        capture="image",
        status=422,
        envelope=detail,
    ),
    Report(
        OURS,
        IMAGE,
        "Failed to create new sequence: this model is missing data required for image input",
        capture="image",
        status=500,
    ),
    Report(
        OURS,
        part_of("file"),
        "messages[3].content[0]: unsupported content type 'file'",
        capture="document",
        quirks={"files": True},
    ),
    Report(
        OURS,
        has("response_format"),
        "This response_format type is unavailable now",
        fields=FORMAT,
    ),
    Report(
        OURS,
        lambda b: bool(b.get("tools")) and "response_format" in b,
        "Function calling with a response mime type: 'application/json' is unsupported",
        fields=FORMAT,
        envelope=google,
    ),
    Report(
        OURS,
        lambda b: bool(b.get("tools")) and "response_format" in b,
        "Incompatible request parameters: tools and response_format cannot be used together",
        fields=FORMAT,
    ),
    Report(
        OURS,
        has("response_format"),
        "Structured outputs are not supported by this model",
        fields=FORMAT,
        envelope=message,
    ),
    Report(
        OURS,
        with_tools(is_in("stream", True)),
        "Streaming is not supported when tools are used",
    ),
    Report(
        OURS,
        is_in("stream", True),
        "stream mode is not supported for this model, set stream to false",
    ),
)
