"""Claude Code started by ``claude-proxy code``."""

from __future__ import annotations

import json

from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.system.e2e.claude_code import NO_SECOND_CHANCE, SWITCHES
from tests.system.e2e.command_line import run_proxyd
from tests.system.e2e.openai_upstream import say
from tests.system.e2e.stage import Stage, check, check_equal, scenario


@scenario
async def code_on_demo(stage: Stage) -> None:
    """claude-proxy code demo -p "say hi": starts the daemon and Claude Code, forwards arguments and exit code"""
    home = stage.project.parent / "user"
    config = home / ".config" / "claude-proxy"
    config.mkdir(parents=True)
    (config / "models.yaml").write_text("- {model_id: demo, api_base: 'builtin:demo', context: 200k}\n")
    bin_folder = home / "bin"
    bin_folder.mkdir()
    (bin_folder / "claude").symlink_to(stage.claude_binary)
    port = free_port()
    variables = {
        "PATH": f"{bin_folder}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(home),
        "PORT": str(port),
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        **SWITCHES,
        **NO_SECOND_CHANCE,
    }
    try:
        code, out, err = await run_proxyd(
            variables, stage.project, "code", "demo", "-p", "say hi", "--output-format", "json"
        )
        check_equal(code, 0, f"the exit code ({err[-500:]})")
        check("claude-proxy was started on" in err, f"it does not say that it started the daemon: {err!r}")
        response = json.loads(out)
        check("demo model" in response["result"], f"the answer is {response['result']!r}")
        code, out, err = await run_proxyd(variables, stage.project, "status", "--json")
        check_equal(json.loads(out)["supervisor"], "detached", "who runs the daemon")
        code, _, _ = await run_proxyd(variables, stage.project, "code", "demo", "--", "--no-such-option")
        check(code != 0, "the exit code of a Claude Code that failed was not passed on")
    finally:
        code, _, err = await run_proxyd(variables, stage.project, "stop")
    check_equal(code, 0, f"the exit code of stop ({err})")


@scenario
async def aliases_lead_to_the_entry(stage: Stage) -> None:
    """--model opus, sonnet, haiku and fable, with the variables of `env`, are the chosen entry"""
    upstream = await stage.openai(say("Here."))
    models = [{"model_id": "chosen", "api_base": upstream.api_base, "context": "200k"}]
    daemon = await stage.daemon(models)
    port = daemon.base_url.rpartition(":")[2]
    own = {"PATH": "/usr/bin:/bin", "HOME": str(stage.home), "PYTHONPATH": str(ROOT), "PORT": port}
    config = stage.home / "models.yaml"
    config.write_text(json.dumps(models))
    code, out, err = await run_proxyd(own, stage.project, "env", "--models", str(config), "--shell", "json")
    check_equal(code, 0, f"the exit code of env ({err})")
    variables = json.loads(out)["env"]
    for alias in ("opus", "sonnet", "haiku", "fable"):
        run = await stage.succeed(daemon, "Hello.", model=alias, environment=variables, credentials={})
        check_equal(run.text, "Here.", f"the answer to {alias}")
    check_equal([request.body["model"] for request in upstream.requests], ["chosen"] * 4, "the models")
