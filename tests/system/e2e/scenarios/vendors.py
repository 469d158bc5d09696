"""Conversations with vendors that refuse what they refuse today: no call fails, and none is sent twice."""

from __future__ import annotations

from dataclasses import dataclass

from tests.system.e2e.openai_upstream import call, refuse, say
from tests.system.e2e.scripted import Turn
from tests.system.e2e.stage import Stage, check, check_equal, scenario

#: No retry and no open circuit: each refusal of an upstream must be seen in the number of calls.
ENVIRONMENT = {"MAX_RETRIES": "0", "CLAUDE_PROXY_CIRCUIT_FAILURES": "0"}


@dataclass(frozen=True)
class _Upstream:
    """An entry of models.yaml and the simulator behind it.

    Args:
        provider: of the entry; None for a gateway that no profile knows.
        thinks: its reasoning is visible.
    """

    vendor: str
    model: str
    provider: str | None = None
    thinks: bool = True


def _look(upstream: _Upstream, word: str) -> Turn:
    reasoning = f"I have to look for {word}." if upstream.thinks else ""
    return call("Bash", reasoning=reasoning, command=f"echo {word}", description="Look")


def _say(upstream: _Upstream, text: str) -> Turn:
    return say(text, reasoning="Now I know." if upstream.thinks else "")


async def _converse(stage: Stage, main: _Upstream, spare: _Upstream, overflow: str) -> None:
    """A turn with a tool, one whose first half the fallback serves, and one that Claude Code has to compact for.

    Args:
        overflow: how the vendor refuses a prompt that is too long.
    """
    first = [_look(main, "one"), _say(main, "One it is.")]
    second = [refuse(503, "Service is too busy"), _say(main, "Two it is.")]
    third = [
        refuse(400, overflow),
        _say(main, "<summary>There were one and two.</summary>"),
        _say(main, "Both."),
    ]
    upstream = await stage.vendor(main.vendor, [*first, *second, *third])
    other = await stage.vendor(spare.vendor, [_look(spare, "two")])
    entries = [
        {
            "model_id": name,
            "model_name": each.model,
            "api_base": at.api_base,
            "api_key": "key-of-nobody",
            **({"provider": each.provider} if each.provider else {}),
        }
        for name, each, at in (("main", main, upstream), ("spare", spare, other))
    ]
    daemon = await stage.daemon([{**entries[0], "fallback": ["spare"]}, entries[1]], ENVIRONMENT)
    run = await stage.succeed(daemon, "Look for one.", model="main", tools=["Bash"])
    check_equal(run.text, "One it is.", "the answer")
    options = ["--resume", run.session_id]
    run = await stage.succeed(daemon, "Look for two.", model="main", tools=["Bash"], options=options)
    check_equal(run.text, "Two it is.", "the answer after a turn of the fallback")
    run = await stage.succeed(daemon, "What was there?", model="main", tools=["Bash"], options=options)
    check_equal(run.text, "Both.", "the answer after the compaction")
    check_equal((upstream.refused, other.refused), ([], []), "what the vendors refused")
    check_equal((len(upstream.requests), len(other.requests)), (7, 1), "calls of the upstreams")
    check("two" in upstream.requests[3].texts("tool")[-1], "the result of the fallback's call is missing")
    check(
        "There were one and two." in "\n".join(upstream.requests[-1].texts("user")), "the summary is missing"
    )


DEEPSEEK = _Upstream("deepseek", "deepseek-v4-pro", "deepseek")
GLM = _Upstream("zhipu", "glm-5.3", "zhipu")
KIMI = _Upstream("moonshot", "kimi-k2.6", "moonshot")


@scenario
async def vendor_kimi(stage: Stage) -> None:
    """Kimi: a tool, thinking, a turn of the fallback and back, a compaction; nothing is refused"""
    await _converse(
        stage,
        KIMI,
        GLM,
        "Invalid request: Your request exceeded model token limit: 262144 (requested: 290011)",
    )


@scenario
async def vendor_gpt_5_6(stage: Stage) -> None:
    """GPT-5.6: the same"""
    words = (
        "This model's maximum context length is 400000 tokens. However, your messages resulted in 450123 tokens. "
        "Please reduce the length of the messages."
    )
    await _converse(stage, _Upstream("openai", "gpt-5.6", "openai", thinks=False), KIMI, words)


@scenario
async def vendor_glm_5_3(stage: Stage) -> None:
    """GLM-5.3: the same"""
    await _converse(stage, GLM, DEEPSEEK, "Prompt 超长")


@scenario
async def vendor_llama_cpp(stage: Stage) -> None:
    """llama.cpp: the same"""
    words = "the request exceeds the available context size. try increasing the context size or enable context shift"
    await _converse(
        stage,
        _Upstream("llamacpp", "qwen3.8-27b", "llamacpp"),
        _Upstream("openai", "gpt-5.6", "openai", False),
        words,
    )


@scenario
async def vendor_deepseek_by_a_gateway(stage: Stage) -> None:
    """DeepSeek behind a gateway that no profile knows: the same"""
    words = (
        "This model's maximum context length is 131072 tokens. However, you requested 171072 tokens (139072 in the "
        "messages, 32000 in the completion). Please reduce the length of the messages or completion."
    )
    gateway = _Upstream("deepseek", "deepseek-v4-pro")
    await _converse(stage, gateway, _Upstream("llamacpp", "qwen3.8-27b", "llamacpp"), words)
