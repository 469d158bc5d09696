"""OpenAI, and those who serve its models in its form."""

from __future__ import annotations

from tests.support.vendors import messages, parameters
from tests.support.vendors.engine import Rule, Vendor, rule
from tests.support.vendors.shared import MISTRAL_ORDER, OPENAI_SCHEMAS, STRICT

__all__ = ["OPENAI_FAMILY"]

#: OpenAI's models that reason.
REASONING = r"(^|/)(o\d|gpt-5(?![\w.-]*-chat))"


def _openai_efforts(models: str, *allowed: str) -> Rule:
    return rule(
        "efforts",
        "https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reasoning",
        parameters.only_values(
            "reasoning_effort",
            allowed,
            "Unsupported value: 'reasoning_effort' does not support '{value}' with this model. "
            "Supported values are: {allowed}.",
        ),
        models=models,
    )


def _unsupported(name: str, source: str, models: str) -> Rule:
    words = f"Unsupported parameter: '{name}' is not supported with this model."
    return rule(f"no {name}", source, parameters.no_field(name, words), models=models)


OPENAI_RULES = (
    STRICT,
    rule(
        "count of tools",
        "zed-industries/zed#42393",
        parameters.count_of_tools(
            128,
            "Invalid 'tools': array too long. Expected an array with maximum length 128, "
            "but got an array with length {count} instead.",
        ),
    ),
    OPENAI_SCHEMAS,
    rule(
        "tool ids",
        "microsoft/autogen#6377",
        messages.tool_ids(
            r".{1,40}",
            "Invalid 'messages[{n}].tool_calls[0].id': string too long. Expected a string with maximum length 40, "
            "but got a string with length {length} instead.",
        ),
    ),
    rule(
        "output limit",
        "microsoft/vscode-copilot-release#8065",
        parameters.no_field(
            "max_tokens",
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
        ),
        models=REASONING,
    ),
    _unsupported("temperature", "tmc/langchaingo#1355", REASONING),
    _unsupported("top_p", "QuantaAlpha/RepoMaster#8", REASONING),
    _unsupported("stop", "huggingface/smolagents#1662", REASONING),
    _unsupported("parallel_tool_calls", "langchain-ai/langchain#29704", r"(^|/)o\d"),
    rule(
        "no reasoning_effort",
        "davidmigloz/langchain_dart#712",
        parameters.no_field("reasoning_effort", "Unrecognized request argument supplied: reasoning_effort"),
        models=r"(^|/)gpt-4|-chat",
    ),
    _openai_efforts(r"(^|/)o\d", "low", "medium", "high"),
    _openai_efforts(r"(^|/)gpt-5(-mini|-nano|-codex)?(-\d{4}|$)", "minimal", "low", "medium", "high"),
    _openai_efforts(r"(^|/)gpt-5\.1", "none", "low", "medium", "high"),
    _openai_efforts(r"(^|/)gpt-5\.[2-9]", "none", "low", "medium", "high", "xhigh"),
    rule(
        "effort with tools",
        "pipecat-ai/pipecat#4043",
        parameters.effort_with_tools(
            (None, "none"),
            "Function tools with reasoning_effort are not supported for {model} in /v1/chat/completions. "
            "Please use /v1/responses instead.",
        ),
        models=r"(^|/)gpt-5\.[45]",
    ),
    rule(
        "effort with tools",
        "BerriAI/litellm#34569",
        parameters.effort_with_tools(
            ("none",),
            "Function tools with reasoning_effort are not supported for {model} in /v1/chat/completions. "
            "To use function tools, use /v1/responses or set reasoning_effort to 'none'.",
        ),
        models=r"(^|/)gpt-5\.[6-9]",
    ),
)

OPENAI_MODELS = ("gpt-5.6", "gpt-5.4", "gpt-5.2", "gpt-5.1", "gpt-5", "gpt-5-mini", "o3", "gpt-4.1")

OPENAI_FAMILY = (
    Vendor("openai", OPENAI_MODELS, OPENAI_RULES),
    Vendor("azure", OPENAI_MODELS, OPENAI_RULES, key_header="api-key"),
    Vendor(
        "github",
        (*(f"openai/{model}" for model in OPENAI_MODELS), "mistral-ai/mistral-medium-2505"),
        (
            *(each.only(each.models or r"openai/") for each in OPENAI_RULES),
            MISTRAL_ORDER.only(r"mistral"),
            rule(
                "tool ids",
                "nearai/ironclaw#1241",
                messages.tool_ids(
                    r"[A-Za-z0-9]{9}", "Tool call id was {id} but must be a-z, A-Z, 0-9, with a length of 9."
                ),
                models=r"mistral",
            ),
        ),
    ),
)
