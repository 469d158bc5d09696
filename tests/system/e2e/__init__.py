"""End-to-end tests of the real Claude Code, the real daemon and scripted upstreams: ``python -m tests.system.e2e``.

::

    install       puts a pinned Claude Code into .e2e/
    scripted      an upstream that plays a script; openai_upstream and anthropic_upstream are its dialects
    daemon        the proxy as a process
    claude_code   runs of claude -p with a clean environment
    stage         the fixture of a scenario, and its report
    scenarios/    modules with functions marked @scenario; new files are found automatically

A scenario is an async function that takes a `Stage`. It fails if it raises `ScenarioError` (`check`, `check_equal`),
if an upstream received an invalid request, if a script had too many or too few turns, if the daemon logged a
traceback, or if it did not end cleanly on SIGTERM.

The smallest one::

    @scenario
    async def greeting(stage: Stage) -> None:
        '''The text of the upstream is the result of Claude Code'''
        upstream, run = await stage.converse([say("Hello.")], "Hi.")
        check_equal(run.text, "Hello.", "the result")
"""
