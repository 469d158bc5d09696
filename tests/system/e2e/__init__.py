"""The real Claude Code against the real daemon, with scripted upstreams behind it: ``python -m tests.system.e2e``.

::

    install       puts a pinned Claude Code into .e2e/
    scripted      an upstream that plays a script; openai_upstream and anthropic_upstream are its dialects
    daemon        the proxy as a process of its own
    claude_code   one run of claude -p with a clean environment
    stage         one of each for a scenario, and the report when it fails
    scenarios/    modules with functions marked @scenario; a new file there is found by itself

A scenario is an async function that takes a `Stage`. It fails by raising `ScenarioError` (`check`,
`check_equal`), and also when an upstream saw a request that it would refuse, when a turn of a script was left
over or asked for too often, when the daemon logged a traceback, or when it did not end cleanly on SIGTERM.

The smallest one::

    @scenario
    async def greeting(stage: Stage) -> None:
        '''The answer of the upstream is the answer of Claude Code'''
        upstream, run = await stage.converse([say("Hello.")], "Hi.")
        check_equal(run.text, "Hello.", "the answer")
"""
