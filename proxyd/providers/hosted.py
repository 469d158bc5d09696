"""Profiles of the vendors that run their models themselves.

To add one, add a `Profile` here, a transcript of its request and of its stream, and run
``python docs/generate_providers.py``. Sources were read from July to November 2026.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from proxyd.codecs.gemini.thinking import BUDGET_PATH
from proxyd.codecs.translation.dialect import Dialect
from proxyd.providers.claude_platforms import VERTEX
from proxyd.providers.profile import (
    ANTHROPIC_ONLY,
    DEEPSEEK_REASONING,
    GPT_OSS,
    KIMI_REASONING,
    KIMI_SOURCE,
    MINIMAX_REASONING,
    MISTRAL_ORDER,
    MOONSHOT_SCHEMAS,
    MOONSHOT_SCHEMAS_SOURCE,
    NO_EFFORT,
    STRICT_TEMPLATE,
    STRICT_TEMPLATE_SOURCE,
    THINK_TAGS,
    Preference,
    Profile,
    Variant,
    levels,
)

__all__ = ["HOSTED"]

#: OpenAI's model families, newest behaviour as default; also behind Azure and GitHub Models.
_OPENAI_REASONING: dict[str, Any] = {
    "max_tokens_field": "max_completion_tokens",
    "system_role": "developer",
    "sampling": (),
    "stop_limit": 0,
    "effort_path": "reasoning_effort",
    "efforts": levels("none", "low", "medium", "high", "xhigh"),
    "reasoning_return": "none",
}
#: What the newest models take in the Responses API, and what those before gpt-5.3-codex do not.
_OPENAI_RESPONSES: dict[str, Any] = {"stream_options": True, "message_phases": True}
_WITHOUT_PHASES: dict[str, dict[str, Any]] = {"openai-responses": {"message_phases": False}}
_OPENAI_VARIANTS = (
    Variant(
        r"(^|/)(gpt-3|gpt-4|chatgpt-4)|gpt-5[\w.-]*-chat",
        {"system_role": "system", "sampling": ("temperature", "top_p"), "stop_limit": 4, **NO_EFFORT},
        {"openai-responses": {"message_phases": False, "reasoning_items": "none"}},
    ),
    Variant(
        r"(^|/)o\d",
        {
            **_OPENAI_REASONING,
            "efforts": levels("low", "medium", "high"),
            "parallel_tool_calls": False,
        },
        _WITHOUT_PHASES,
    ),
    Variant(
        r"(^|/)gpt-5(-mini|-nano|-codex)?(-\d{4}|$)",
        {**_OPENAI_REASONING, "efforts": levels("low", "medium", "high", none="minimal")},
        _WITHOUT_PHASES,
    ),
    Variant(
        r"(^|/)gpt-5\.1",
        {**_OPENAI_REASONING, "efforts": levels("none", "low", "medium", "high")},
        _WITHOUT_PHASES,
    ),
    Variant(r"(^|/)gpt-5\.2", {}, _WITHOUT_PHASES),
    Variant(r"gpt-5-pro", {**_OPENAI_REASONING, "efforts": levels("high")}, _WITHOUT_PHASES),
    Variant(r"(^|/)gpt-5\.[4-9](?![\w.-]*-chat)", {"body_with_tools": {"reasoning_effort": "none"}}),
)
_OPENAI = Dialect(
    **_OPENAI_REASONING,
    files=True,
    service_tier=True,
    prompt_cache_key=True,
    max_tools=128,
    tool_id_style="openai",
)
_OPENAI_SOURCES = (
    "openai Python SDK 3.54.0, CompletionCreateParamsBase and FunctionDefinition",
    "stop refused from gpt-5 on: smolagents#1662, smolagents#1893",
    "efforts per model: learn.microsoft.com, ReasoningEffort type",
    "from gpt-5.4 on Chat Completions takes tools or reasoning, not both: litellm#34569, goose#11413, pipecat#4043",
)

#: From gpt-5.4 on.
_NEEDS_RESPONSES = Preference(
    r"(^|/)gpt-(5\.[4-9]|[6-9])(?![\w.-]*-chat)",
    "openai-responses",
    "Chat Completions takes tools or reasoning of this model, not both",
)
_RESPONSES_SOURCES = (
    "openai Python SDK 3.57.0, ResponseCreateParams, ResponseStreamEvent, ResponseOutputMessage (phase)",
    "summaries for verified organisations alone: software-agent-sdk#987, windmill#10147",
    "reasoning of another account: codex#8145, sub2api#2863",
)

#: Gemini's own API: models before 3 take any temperature, and images beside results alone.
_GEMINI_BEFORE_3: dict[str, dict[str, Any]] = {
    "gemini": {"sampling": ("temperature", "top_p", "top_k"), "images_in_tool_results": False}
}


def _budget(least: int, most: int, *, off: int | None) -> dict[str, dict[str, Any]]:
    """Return the switches of a Gemini model that takes a budget in place of a level; `off` None: it always thinks."""
    return {
        "gemini": {
            "effort_path": None,
            "budget_path": BUDGET_PATH,
            "budget_range": (least, most),
            "thinking_off": off,
        }
    }


#: For calls that the model has not made.
_GEMINI_PLACEHOLDER = "skip_thought_signature_validator"
#: Gemini's models, at AI Studio and at Vertex AI.
_GEMINI = Dialect(
    leading_system_only=True,
    parallel_tool_calls=False,
    tool_names_start_with_letter=True,
    tool_message_names=True,
    schema_style="gemini",
    efforts=levels("low", "medium", "high", none="minimal"),
    reasoning_return="none",
    thought_signatures=True,
    thought_signature_placeholder=_GEMINI_PLACEHOLDER,
    think_tags=("thought",),
)
_GEMINI_VARIANTS = (
    Variant(r"gemini-(1|2\.0)", NO_EFFORT, {"gemini": {"thinks_by_default": False}}),
    Variant(
        r"gemma-[123]",
        {**NO_EFFORT, "thought_signature_placeholder": None},
        {"gemini": {**_GEMINI_BEFORE_3["gemini"], "thinks_by_default": False, "system_role": "user"}},
    ),
    Variant(r"gemini-[12]", {"thought_signature_placeholder": None}, _GEMINI_BEFORE_3),
    Variant(
        r"gemini-3[\d.]*-pro|gemini-3\.[7-9]",
        {"efforts": levels("low", "medium", "high", none="low")},
    ),
    Variant(r"gemini-3-pro", {"efforts": levels("low", "high", none="low")}),
    Variant(r"gemini-2\.5", {"efforts": levels("none", "low", "medium", "high")}, _budget(0, 24576, off=0)),
    Variant(r"gemini-2\.5-flash-lite", {}, _budget(512, 24576, off=0)),
    Variant(
        r"gemini-2\.5-pro",
        {"efforts": levels("low", "medium", "high")},
        _budget(128, 32768, off=None),
    ),
)
_GEMINI_API: dict[str, dict[str, Any]] = {
    "gemini": {"thinks_by_default": True, "sampling": ("top_p", "top_k")}
}
_GEMINI_SOURCES = (
    "continue#8865",
    "gemini-3-pro takes low and high alone: opencode-gemini-auth#14; results without a name are refused: "
    "inference-gateway#181, hermes-agent#19728",
    "google-genai 3.6.1, types; Gemini docs: Gemini 3 Developer Guide (temperature), Thinking (budgets)",
)

HOSTED = (
    Profile(
        name="anthropic",
        title="Anthropic",
        hosts=("api.anthropic.com",),
        sources=("platform.claude.com, Messages API reference",),
        note="For direct routes; it is what direct mode is measured against.",
    ),
    Profile(
        name="openai",
        searches={"openai-responses": "responses"},
        title="OpenAI",
        hosts=("api.openai.com",),
        dialect=_OPENAI,
        variants=_OPENAI_VARIANTS,
        formats={"openai-responses": _OPENAI_RESPONSES},
        preferences=(_NEEDS_RESPONSES,),
        sources=(*_OPENAI_SOURCES, *_RESPONSES_SOURCES),
        note="Reasoning is not visible in Chat Completions, so none goes back. From gpt-5.4 on it takes tools or "
        "reasoning, so these models are called over Responses where the entry names no format; with "
        "`format: openai-chat`, requests with tools say `reasoning_effort: none`.",
    ),
    Profile(
        name="azure",
        searches={"openai-responses": "responses"},
        title="Azure OpenAI",
        hosts=("*.openai.azure.com", "*.cognitiveservices.azure.com", "*.services.ai.azure.com"),
        dialect=_OPENAI,
        variants=(
            *_OPENAI_VARIANTS,
            # Models of others, in Azure AI Foundry.
            Variant(
                r"kimi|deepseek|mistral|ministral|codestral|llama|grok|phi-|qwen|cohere|command",
                {
                    "max_tokens_field": "max_tokens",
                    "system_role": "system",
                    "sampling": ("temperature", "top_p"),
                    "stop_limit": 4,
                    "files": False,
                    "service_tier": False,
                    "prompt_cache_key": False,
                    **NO_EFFORT,
                },
            ),
            THINK_TAGS,
            Variant(r"mistral|ministral|codestral", {**MISTRAL_ORDER, "tool_id_style": "mistral"}),
            Variant(r"deepseek-v(3\.[1-9]|[4-9])", DEEPSEEK_REASONING),
            Variant(r"kimi", {**KIMI_REASONING, **MOONSHOT_SCHEMAS}),
        ),
        formats={"openai-responses": _OPENAI_RESPONSES},
        auth="api-key",
        sources=(*_OPENAI_SOURCES, *_RESPONSES_SOURCES, "Microsoft Q&A 1533887"),
        note="`model_name` is the name of the deployment: name it after its model, or set quirks. Responses are at "
        "`https://RESOURCE.openai.azure.com/openai/v1`.",
    ),
    Profile(
        name="openrouter",
        searches={"openai-chat": "openrouter"},
        title="OpenRouter",
        hosts=("openrouter.ai", "*.openrouter.ai"),
        dialect=Dialect(
            files=True,
            sampling=("temperature", "top_p", "top_k"),
            thinking_path="reasoning.enabled",
            thinking_on=True,
            effort_path="reasoning.effort",
            efforts=levels("none", "minimal", "low", "medium", "high", "xhigh"),
            reasoning_return="details",
            reasoning_field="reasoning",
        ),
        variants=(
            Variant(r"^(anthropic|google|qwen|alibaba)/", {"cache_control": True}),
            THINK_TAGS,
            Variant(r"^(qwen|minimax)/", STRICT_TEMPLATE),
            Variant(r"^mistralai/", MISTRAL_ORDER),
            Variant(r"deepseek-v(3\.[1-9]|[4-9])", DEEPSEEK_REASONING),
            Variant(r"kimi", {**KIMI_REASONING, **MOONSHOT_SCHEMAS, "reasoning_with_calls_only": True}),
        ),
        formats={"openai-responses": {"reasoning_item_ids": True, "images_in_tool_results": False}},
        sources=(
            "OpenRouter docs: Reasoning tokens; Prompt caching; Errors and debugging",
            "Responses: SDK models OpenResponsesReasoning (id is required), OpenResponsesFunctionCallOutput (a text); "
            "answers of the assistant as texts: cherry-studio#10477, codex#12114",
            "Kimi behind OpenRouter: earendil-works/pi#987",
            STRICT_TEMPLATE_SOURCE,
        ),
        note="`cache_control` is passed on to Anthropic, Google and Qwen models.",
    ),
    Profile(
        name="deepseek",
        title="DeepSeek",
        hosts=("api.deepseek.com",),
        dialect=Dialect(
            vision=False,
            response_format="json_object",
            forced_choice_while_thinking=False,
            thinking_path="thinking.type",
            thinking_on="enabled",
            thinking_off="disabled",
            efforts=levels("high", "max", low="high", medium="high", xhigh="max"),
            thinks_by_default=True,
            **DEEPSEEK_REASONING,
        ),
        omit=ANTHROPIC_ONLY,
        keeps_unsigned_thinking=True,
        sources=(
            "DeepSeek docs: Thinking mode; JSON output; Rate limit",
            "opencode#24722, vercel/ai#13203",
        ),
        note="Set `vision: true` for a model that sees images.",
    ),
    Profile(
        name="moonshot",
        searches={"openai-chat": "kimi"},
        title="Moonshot Kimi",
        hosts=("api.moonshot.ai", "api.moonshot.cn", "api.kimi.com"),
        dialect=Dialect(
            max_tokens_field="max_completion_tokens",
            sampling=(),
            response_format="json_object",
            forced_choice_while_thinking=False,
            thinking_path="thinking.type",
            thinking_on="enabled",
            thinking_off="disabled",
            effort_path=None,
            thinks_by_default=True,
            prefill_message={"partial": True},
            **MOONSHOT_SCHEMAS,
            **KIMI_REASONING,
        ),
        variants=(
            Variant(
                r"moonshot-v1|kimi-latest|kimi-k2-(0|turbo|instruct)",
                {
                    "sampling": ("temperature", "top_p"),
                    "vision": False,
                    "thinking_path": None,
                    "thinks_by_default": False,
                    "reasoning_return": "none",
                    "forced_choice_while_thinking": True,
                },
            ),
            Variant(r"vision|kimi-latest", {"vision": True}),
            Variant(r"kimi-k2-thinking", {"thinking_path": None, "vision": False}),
            Variant(r"kimi-k2\.7-code", {"thinking_off": None}),
            Variant(
                r"kimi-k3",
                {
                    "thinking_path": None,
                    "effort_path": "reasoning_effort",
                    "efforts": levels("low", "high", "max"),
                },
            ),
        ),
        omit=(*ANTHROPIC_ONLY, "output_config"),
        keeps_unsigned_thinking=True,
        sources=(
            "Kimi docs: Using thinking models",
            "Kimi-K2 README",
            KIMI_SOURCE,
            MOONSHOT_SCHEMAS_SOURCE,
        ),
    ),
    Profile(
        name="zhipu",
        searches={"openai-chat": "glm"},
        title="Zhipu GLM / Z.ai",
        hosts=("open.bigmodel.cn", "*.bigmodel.cn", "api.z.ai"),
        dialect=Dialect(
            vision=False,
            stop_limit=1,
            response_format="json_object",
            required_word="auto",
            named_tool_choice=False,
            parallel_tool_calls=False,
            thinking_path="thinking",
            thinking_on={"type": "enabled", "clear_thinking": False},
            thinking_off={"type": "disabled"},
            effort_path=None,
            thinks_by_default=True,
            reasoning_return="field",
            reasoning_field="reasoning_content",
        ),
        variants=(
            Variant(r"glm-[\d.]+v", {"vision": True}),
            Variant(r"glm-(4\.[67]|[5-9])", {"body_with_tools": {"tool_stream": True}}),
            Variant(
                r"glm-(5\.[2-9]|[6-9])",
                {
                    "effort_path": "reasoning_effort",
                    "efforts": levels("high", "max", low="high", medium="high", xhigh="max"),
                },
            ),
            Variant(
                r"glm-(5\.[3-9]|[6-9])",
                {"efforts": levels("low", "high", "max", medium="high", xhigh="max"), "thinking_off": None},
            ),
        ),
        omit=(*ANTHROPIC_ONLY, "output_config"),
        keeps_unsigned_thinking=True,
        sources=(
            "Z.ai docs: Thinking mode; Tool streaming output",
            "BigModel docs: chat completions",
            "GLM-5.3 takes low, high and max, and always thinks: catwalk#603, hermes-agent#85891; 5.2: oh-my-pi#2833",
        ),
        note="Only `tool_choice: auto` and one stop sequence are unconfirmed.",
    ),
    Profile(
        name="minimax",
        title="MiniMax",
        hosts=("api.minimax.io", "api.minimaxi.com", "api.minimax.chat", "*.minimaxi.com"),
        dialect=Dialect(
            **STRICT_TEMPLATE,
            max_tokens_field="max_completion_tokens",
            vision=False,
            response_format="none",
            effort_path=None,
            thinks_by_default=True,
            reasoning_return="tags",
            think_tags=("think",),
            think_tags_repeat=True,
        ),
        variants=(
            Variant(
                r"minimax-m[3-9]",
                {"thinking_path": "thinking.type", "thinking_on": "adaptive", "thinking_off": "disabled"},
            ),
        ),
        omit=(*ANTHROPIC_ONLY, "output_config"),
        keeps_unsigned_thinking=True,
        sources=(
            "MiniMax docs: OpenAI API compatible",
            "a second system message is error 2013: MiniMax-M2#51, MiniMax-M2.7#43",
        ),
    ),
    Profile(
        name="dashscope",
        searches={"openai-responses": "responses", "openai-chat": "dashscope"},
        title="Qwen / DashScope",
        hosts=("dashscope.aliyuncs.com", "dashscope-*.aliyuncs.com", "*.maas.aliyuncs.com"),
        dialect=Dialect(
            **STRICT_TEMPLATE,
            sampling=("temperature", "top_p", "top_k"),
            response_format="none",
            cache_control=True,
            forced_choice_while_thinking=False,
            thinking_path="enable_thinking",
            thinking_on=True,
            thinking_off=False,
            effort_path=None,
            budget_path="thinking_budget",
            reasoning_return="none",
        ),
        variants=(
            Variant(r"coder|qwq|qwen-(max|turbo|flash|plus)|qwen3-(max|\d)", {"vision": False}),
            Variant(r"coder|instruct", {"thinking_path": None, "budget_path": None}),
            Variant(r"-vl", {"vision": True}),
            THINK_TAGS,
            Variant(r"minimax", MINIMAX_REASONING),
            Variant(r"deepseek", DEEPSEEK_REASONING),
            Variant(r"kimi", {**KIMI_REASONING, **MOONSHOT_SCHEMAS}),
        ),
        sources=("Alibaba Model Studio docs: Deep thinking; Context cache", STRICT_TEMPLATE_SOURCE),
    ),
    Profile(
        name="doubao",
        title="Volcengine Doubao (Ark)",
        hosts=("ark.*.volces.com", "ark.*.bytepluses.com"),
        dialect=Dialect(
            thinking_path="thinking.type",
            thinking_on="enabled",
            thinking_off="disabled",
            efforts=levels("low", "medium", "high"),
            thinks_by_default=True,
            reasoning_return="field",
            reasoning_field="reasoning_content",
        ),
        variants=(
            Variant(r"kimi", {**KIMI_REASONING, **MOONSHOT_SCHEMAS}),
            Variant(r"deepseek", DEEPSEEK_REASONING),
        ),
        omit=(*ANTHROPIC_ONLY, "output_config"),
        keeps_unsigned_thinking=True,
        sources=("Volcengine docs: Deep thinking; Doubao-seed-1.8",),
        note="`model_name` is a model id or an endpoint id (`ep-…`).",
    ),
    Profile(
        name="siliconflow",
        title="SiliconFlow",
        hosts=("api.siliconflow.cn", "api.siliconflow.com"),
        dialect=Dialect(
            response_format="json_object",
            sampling=("temperature", "top_p", "top_k"),
            thinking_path="enable_thinking",
            thinking_on=True,
            thinking_off=False,
            effort_path=None,
            client_effort=False,
            budget_path="thinking_budget",
            budget_range=(128, 32768),
            reasoning_return="field",
            reasoning_field="reasoning_content",
        ),
        variants=(
            Variant(
                r"qwen3(?!.*(instruct|coder))|glm-(4\.[5-9]|[5-9])|deepseek-v(3\.[1-9]|[4-9])|kimi-k2\.[5-9]",
                {"client_effort": True},
            ),
            THINK_TAGS,
            Variant(r"qwen|minimax", STRICT_TEMPLATE),
            Variant(r"minimax", MINIMAX_REASONING),
            Variant(r"deepseek-v(3\.[1-9]|[4-9])", DEEPSEEK_REASONING),
            Variant(r"kimi", {**KIMI_REASONING, **MOONSHOT_SCHEMAS}),
            Variant(r"deepseek|kimi-k2-|glm-[\d.]+$|coder", {"vision": False}),
        ),
        sources=("SiliconFlow docs: chat/completions", "Kimi behind SiliconFlow: QwenPaw#433"),
        note="`enable_thinking` goes only to models that have the switch; the others answer 400 to it.",
    ),
    Profile(
        name="gemini",
        searches={"gemini": "gemini"},
        title="Gemini",
        hosts=("generativelanguage.googleapis.com",),
        dialect=_GEMINI,
        variants=_GEMINI_VARIANTS,
        formats=_GEMINI_API,
        sources=(
            "Gemini docs: OpenAI compatibility; Thought signatures; Function calling (Schema)",
            *_GEMINI_SOURCES,
            "Gemma takes no signatures: hermes-agent#84707; no system instruction: rig#788",
        ),
        note="Chat Completions at `/v1beta/openai`: schemas are narrowed to Gemini's subset; thought signatures go "
        "back with their calls. `format: gemini` at `/v1beta` is Gemini's own API, with whole schemas, thoughts and "
        "images in results.",
    ),
    Profile(
        name="vertex",
        searches={"gemini": "gemini"},
        title="Google Vertex AI",
        hosts=(
            "aiplatform.googleapis.com",
            "*-aiplatform.googleapis.com",
            "aiplatform.*.rep.googleapis.com",
        ),
        dialect=_GEMINI,
        variants=(
            # Models of others at the same address.
            Variant(
                r"^(?!google/|models/|tunedModels/)[\w.-]+/",
                {
                    "thought_signatures": False,
                    "thought_signature_placeholder": None,
                    "think_tags": ("think",),
                },
            ),
            *_GEMINI_VARIANTS,
            # Bytes in base64.
            Variant(
                r"gemini-(?![12]\b)",
                {},
                {
                    "gemini": {
                        "thought_signature_placeholder": b64encode(_GEMINI_PLACEHOLDER.encode()).decode()
                    }
                },
            ),
        ),
        formats=_GEMINI_API,
        omit=("container", "mcp_servers", "output_config", "service_tier", "speed"),
        direct_auth="bearer",
        claude=VERTEX,
        model_folder="publishers/google/models/",
        signer="vertex/",
        sources=(
            "Vertex AI docs: Call Vertex AI models by using the OpenAI library; REST, publishers.models",
            *_GEMINI_SOURCES,
            "thought signatures of AI Studio are refused, placeholders are base64: LiteLLM 1.110",
            "Claude: anthropic Python SDK 2.12, lib/vertex; fields that are refused: Kong/developer.konghq.com#5952; "
            "betas: LiteLLM 1.110, claude-code#12429, claude-code#34802, claude-code#21625",
        ),
        note="`api_base` names project and location: `https://LOCATION-aiplatform.googleapis.com/v1/projects/PROJECT/"
        "locations/LOCATION`. There `format: gemini` calls Gemini, `direct: true` calls Claude; with "
        "`/endpoints/openapi` behind it, it is Chat Completions. `access_token` is the credential "
        "([keys.md](keys.md#google)).",
    ),
    Profile(
        name="xai",
        searches={"openai-responses": "responses"},
        title="xAI Grok",
        hosts=("api.x.ai", "*.api.x.ai"),
        dialect=Dialect(stop_limit=0, schema_style="xai", reasoning_return="none", **NO_EFFORT),
        variants=(
            Variant(r"grok-[23]|non-reasoning", {"stop_limit": 4}),
            Variant(
                r"grok-3-mini",
                {"effort_path": "reasoning_effort", "efforts": levels("low", "high"), "stop_limit": 0},
            ),
            Variant(
                r"grok-(4\.[3-9]|[5-9])(?!.*non-reasoning)",
                {
                    "effort_path": "reasoning_effort",
                    "efforts": levels("none", "low", "medium", "high"),
                },
            ),
        ),
        formats={"openai-responses": {"prompt_cache_key": True, "images_in_tool_results": False}},
        sources=(
            "docs.x.ai: Best practices guide; Troubleshooting reasoning (order of items, encrypted content)",
            "docs.cloud.google.com: Reasoning for Grok models",
            "@ai-sdk/xai release notes",
            "no bounds on lengths in schemas: openclaw#32080",
        ),
    ),
    Profile(
        name="groq",
        title="Groq",
        hosts=("api.groq.com",),
        dialect=Dialect(
            max_tokens_field="max_completion_tokens",
            vision=False,
            response_format="none",
            reasoning_return="none",
            **NO_EFFORT,
        ),
        variants=(
            GPT_OSS,
            Variant(
                r"qwen3",
                {
                    "effort_path": "reasoning_effort",
                    "efforts": {"none": "none", "medium": "default"},
                    "body": {"reasoning_format": "parsed"},
                },
            ),
            Variant(r"llama-4|scout|maverick", {"vision": True}),
        ),
        sources=("console.groq.com/docs: OpenAI compatibility; Reasoning",),
        note="Structured outputs do not stream there, so schemas become instructions.",
    ),
    Profile(
        name="mistral",
        title="Mistral",
        hosts=("api.mistral.ai", "*.mistral.ai"),
        dialect=Dialect(
            **MISTRAL_ORDER,
            stream_options=False,
            sampling=("temperature", "top_p"),
            stop_limit=None,
            prompt_cache_key=True,
            images_in_tool_results=True,
            prefill_message={"prefix": True},
            required_word="any",
            tool_id_style="mistral",
            efforts=levels("none", "high"),
            client_effort=False,
            reasoning_return="chunks",
        ),
        variants=(
            Variant(r"codestral", {"vision": False}),
            Variant(r"magistral", {**NO_EFFORT, "body": {"prompt_mode": "reasoning"}}),
        ),
        sources=(
            "mistralai Python SDK 3.7.0, ChatCompletionRequest, ThinkChunk, ToolMessage",
            "order of roles, code 3230: avante.nvim#2695, hermes-agent#20154",
            "stream_options is 422: avante.nvim#2347; unknown message fields are 422: crush#1590",
            "tool ids: ironclaw#1241",
        ),
        note="`reasoning_effort` is sent only where models.yaml sets it: most models refuse it.",
    ),
    Profile(
        name="cerebras",
        title="Cerebras",
        hosts=("api.cerebras.ai",),
        dialect=Dialect(
            max_tokens_field="max_completion_tokens",
            vision=False,
            required_word="auto",
            named_tool_choice=False,
            parallel_tool_calls=False,
            reasoning_return="none",
            **NO_EFFORT,
        ),
        variants=(
            GPT_OSS,
            Variant(
                r"glm",
                {"effort_path": "reasoning_effort", "efforts": levels("none"), "think_tags": ("think",)},
            ),
            Variant(r"qwen", {**STRICT_TEMPLATE, "think_tags": ("think",)}),
        ),
        sources=("inference-docs.cerebras.ai: Reasoning", "req_llm, Cerebras"),
    ),
    Profile(
        name="github",
        title="GitHub Models",
        hosts=("models.github.ai", "models.inference.ai.azure.com"),
        dialect=Dialect(
            max_tools=128,
            tool_id_style="openai",
            reasoning_return="none",
            **NO_EFFORT,
        ),
        variants=(
            Variant(r"(^|/)gpt-5", _OPENAI_REASONING),
            *_OPENAI_VARIANTS,
            Variant(r"mistral|ministral|codestral", {**MISTRAL_ORDER, "tool_id_style": "mistral"}),
        ),
        sources=("docs.github.com: REST API endpoints for models inference", *_OPENAI_SOURCES),
    ),
    Profile(
        name="bedrock",
        title="Amazon Bedrock (OpenAI endpoint)",
        hosts=("bedrock-runtime.*.amazonaws.com", "bedrock-mantle.*.api.aws"),
        dialect=Dialect(
            max_tokens_field="max_completion_tokens",
            vision=False,
            tool_id_style="openai",
            reasoning_return="none",
            think_tags=("reasoning",),
            **NO_EFFORT,
        ),
        variants=(
            GPT_OSS,
            Variant(r"qwen|minimax", STRICT_TEMPLATE),
            Variant(r"mistral|ministral", MISTRAL_ORDER),
        ),
        sources=("AWS docs: Invoke a model with the OpenAI Chat Completions API",),
        note="Open-weight and OpenAI models only; the key is a Bedrock API key. Claude on Bedrock is not supported: it "
        "has another API (`invoke-with-response-stream`), whose frames are no server-sent events.",
    ),
)
