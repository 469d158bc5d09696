"""The names and values of OpenTelemetry's semantic conventions that claude-proxy uses; the only module that knows them.

All are of `VERSION`. The GenAI names have since moved to a repository of their own, whose first edition renames the
metrics (docs/spec/operations.md#f6).
"""

from __future__ import annotations

from typing import Final

__all__ = [
    "CHAT",
    "DURATION_BUCKETS_S",
    "FIRST_TOKEN_BUCKETS_S",
    "PER_TOKEN_BUCKETS_S",
    "SCHEMA_URL",
    "TOKEN_BUCKETS",
    "VERSION",
    "provider_name",
]

#: Release of https://github.com/open-telemetry/semantic-conventions.
VERSION: Final = "1.41.1"
SCHEMA_URL: Final = f"https://opentelemetry.io/schemas/{VERSION}"

# -- spans: page gen-ai-spans
OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_MODEL: Final = "gen_ai.response.model"
FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
CACHE_CREATION_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
#: JSON texts, only where content is switched on.
SYSTEM_INSTRUCTIONS: Final = "gen_ai.system_instructions"
INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
#: Value of `OPERATION_NAME`: each call is a message of a conversation, whatever its upstream calls it.
CHAT: Final = "chat"

# -- spans: pages http-spans and attributes
ERROR_TYPE: Final = "error.type"
REQUEST_METHOD: Final = "http.request.method"
STATUS_CODE: Final = "http.response.status_code"
RESEND_COUNT: Final = "http.request.resend_count"
ROUTE: Final = "http.route"
URL_PATH: Final = "url.path"
SERVER_ADDRESS: Final = "server.address"
SERVER_PORT: Final = "server.port"

# -- resource: page service
SERVICE_NAME: Final = "service.name"
SERVICE_VERSION: Final = "service.version"
SERVICE_INSTANCE: Final = "service.instance.id"

# -- metrics: page gen-ai-metrics
TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105 - a name
CLIENT_TOKEN_USAGE: Final = "gen_ai.client.token.usage"  # noqa: S105 - a name
CLIENT_DURATION: Final = "gen_ai.client.operation.duration"
CLIENT_FIRST_CHUNK: Final = "gen_ai.client.operation.time_to_first_chunk"
SERVER_DURATION: Final = "gen_ai.server.request.duration"
SERVER_FIRST_TOKEN: Final = "gen_ai.server.time_to_first_token"  # noqa: S105 - a name
SERVER_PER_TOKEN: Final = "gen_ai.server.time_per_output_token"  # noqa: S105 - a name
TOKEN_BUCKETS: Final = tuple(float(4**power) for power in range(14))
DURATION_BUCKETS_S: Final = tuple(0.01 * 2**power for power in range(14))
#: The conventions end at 10 s; the first token of a long prompt on one's own machine takes minutes.
FIRST_TOKEN_BUCKETS_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 320.0),
)
PER_TOKEN_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

# -- our own
REQUEST_ID: Final = "claude_proxy.request_id"
UPSTREAM_REQUEST_ID: Final = "claude_proxy.upstream_request_id"
MODEL_ROUTE: Final = "claude_proxy.route"
MODE: Final = "claude_proxy.mode"
KIND: Final = "claude_proxy.kind"
OUTCOME: Final = "claude_proxy.outcome"
CALLER: Final = "claude_proxy.caller"
TEAM: Final = "claude_proxy.team"
RETRIES: Final = "claude_proxy.retries"
FALLBACK_FROM: Final = "claude_proxy.fallback_from"
RULE: Final = "claude_proxy.rule"
SERVED_WITH: Final = "claude_proxy.served_with"
AGENT_TYPE: Final = "claude_proxy.agent_type"
PROMPT_ID: Final = "claude_proxy.prompt_id"
COST_USD: Final = "claude_proxy.cost_usd"
IS_ESTIMATED: Final = "claude_proxy.usage_is_estimated"

#: Names of our profiles -> well-known values of `PROVIDER_NAME`. Others are sent as they are.
_PROVIDERS: Final = {
    "azure": "azure.ai.openai",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "moonshot": "moonshot_ai",
    "vertex": "gcp.vertex_ai",
    "xai": "x_ai",
}


#: Stop reasons of Messages -> values of ``finish_reason`` in `OUTPUT_MESSAGES`. Others are sent as they are.
FINISH_REASONS_OF_MESSAGES: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "tool_use": "tool_call",
    "refusal": "content_filter",
}


def provider_name(profile: str) -> str:
    """Return the value of `PROVIDER_NAME` for the name of a profile."""
    return _PROVIDERS.get(profile, profile)
