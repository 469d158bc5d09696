"""Where each known vendor is reached: address, list of models and the usual variable of its key.

What differs in a vendor's requests is its profile (`proxyd.providers.registry`); this table is for
``claude-proxy add``. Vendors that speak the Anthropic API are offered by that address: nothing is translated then.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxyd.codecs.formats import GEMINI
from proxyd.config.keys import APPLICATION_DEFAULT
from proxyd.providers.registry import PROFILES

__all__ = ["LOCAL_SERVERS", "NEEDS_ADDRESS", "VENDORS", "LocalKind", "Vendor", "find_vendor"]


@dataclass(frozen=True, slots=True)
class Vendor:
    """One vendor as ``claude-proxy add`` offers it.

    Attributes:
        name: what the user types.
        profile: name of its profile.
        api_base: "" where each account has an address of its own.
        key_env: the variable in which its documentation puts the key; "" for a server without keys.
        access_token: value of ``access_token`` where the upstream takes no key.
        direct: the address speaks the Anthropic API.
        format: the protocol that the address speaks, where that has to be said in an entry.
        list_url: its list of models, where that is not ``{api_base}/models``.
        also: other names of it.
    """

    name: str
    profile: str
    api_base: str
    key_env: str
    direct: bool = False
    format: str | None = None
    list_url: str = ""
    also: tuple[str, ...] = ()
    access_token: str = ""

    @property
    def title(self) -> str:
        return PROFILES[self.profile].title

    @property
    def models_url(self) -> str:
        return self.list_url or f"{self.api_base}/models"


#: In the order in which they are offered. The addresses and variables are those of the vendors' documentation.
VENDORS = (
    Vendor(
        "kimi",
        "moonshot",
        "https://api.moonshot.ai/anthropic",
        "MOONSHOT_API_KEY",
        direct=True,
        list_url="https://api.moonshot.ai/v1/models",
        also=("moonshot", "moonshotai"),
    ),
    Vendor(
        "deepseek",
        "deepseek",
        "https://api.deepseek.com/anthropic",
        "DEEPSEEK_API_KEY",
        direct=True,
        list_url="https://api.deepseek.com/models",
    ),
    Vendor(
        "glm",
        "zhipu",
        "https://api.z.ai/api/anthropic",
        "ZAI_API_KEY",
        direct=True,
        list_url="https://api.z.ai/api/paas/v4/models",
        also=("zhipu", "zai", "z.ai", "bigmodel"),
    ),
    Vendor(
        "minimax",
        "minimax",
        "https://api.minimax.io/anthropic",
        "MINIMAX_API_KEY",
        direct=True,
        list_url="https://api.minimax.io/v1/models",
    ),
    Vendor("openrouter", "openrouter", "https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    Vendor("openai", "openai", "https://api.openai.com/v1", "OPENAI_API_KEY", also=("gpt",)),
    Vendor(
        "gemini",
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta",
        "GEMINI_API_KEY",
        format=GEMINI.name,
        list_url="https://generativelanguage.googleapis.com/v1beta/models?pageSize=1000",
        also=("google",),
    ),
    Vendor(
        "qwen",
        "dashscope",
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        "DASHSCOPE_API_KEY",
        also=("dashscope", "alibaba"),
    ),
    Vendor(
        "doubao",
        "doubao",
        "https://ark.cn-beijing.volces.com/api/v3",
        "ARK_API_KEY",
        also=("ark", "volcengine"),
    ),
    Vendor("siliconflow", "siliconflow", "https://api.siliconflow.com/v1", "SILICONFLOW_API_KEY"),
    Vendor("grok", "xai", "https://api.x.ai/v1", "XAI_API_KEY", also=("xai", "x.ai")),
    Vendor("groq", "groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    Vendor("mistral", "mistral", "https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    Vendor("cerebras", "cerebras", "https://api.cerebras.ai/v1", "CEREBRAS_API_KEY"),
    Vendor(
        "github",
        "github",
        "https://models.github.ai/inference",
        "GITHUB_TOKEN",
        list_url="https://models.github.ai/catalog/models",
    ),
    Vendor(
        "anthropic",
        "anthropic",
        "https://api.anthropic.com",
        "ANTHROPIC_API_KEY",
        direct=True,
        list_url="https://api.anthropic.com/v1/models",
        also=("claude",),
    ),
)

#: Profiles whose addresses differ from account to account, with the variable of their key.
NEEDS_ADDRESS = (
    Vendor("azure", "azure", "", "AZURE_OPENAI_API_KEY"),
    Vendor("bedrock", "bedrock", "", "AWS_BEARER_TOKEN_BEDROCK"),
    Vendor("vertex", "vertex", "", "", format=GEMINI.name, access_token=APPLICATION_DEFAULT),
)


@dataclass(frozen=True, slots=True)
class LocalKind:
    """A server that people run themselves.

    Attributes:
        profile: name of its profile, and what the user types.
        port: on which it listens unless told otherwise.
    """

    profile: str
    port: int

    @property
    def title(self) -> str:
        return PROFILES[self.profile].title


LOCAL_SERVERS = (
    LocalKind("ollama", 11434),
    LocalKind("lmstudio", 1234),
    LocalKind("llamacpp", 8080),
    LocalKind("vllm", 8000),
    LocalKind("sglang", 30000),
)


def find_vendor(name: str) -> Vendor | None:
    """Return the vendor of that name, in any case."""
    wanted = name.strip().lower()
    for vendor in (*VENDORS, *NEEDS_ADDRESS):
        if wanted in (vendor.name, vendor.profile, *vendor.also):
            return vendor
    return None
