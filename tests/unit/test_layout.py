"""Each module has a test module of its name, and test modules share code through tests/support only."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.rows import check_rows

#: Modules without a test module of their name: where they are tested, or why they need no test.
WITHOUT_TEST_MODULE = {
    "api/health": "integration/api/test_app.py",
    "api/messages": "integration/api/test_app.py",
    "api/models": "integration/api/test_app.py",
    "api/request_body": "security/test_body_limits.py and security/test_bodies_and_terminals.py",
    "api/request_keys": "names only",
    "cli/add_dialog": "integration/cli/commands/test_add.py",
    "cli/add_key": "integration/cli/commands/test_add.py",
    "cli/add_target": "integration/cli/commands/test_add.py",
    "cli/claude_code": "integration/cli/commands/test_code.py",
    "cli/commands/import_": "unit/onboarding/test_foreign_files.py",
    "cli/commands/lifecycle": "system/test_background.py",
    "cli/commands/run": "system/test_foreground.py",
    "cli/commands/service": "system/service",
    "cli/daemon_client": "system/test_background.py",
    "cli/groups": "integration/cli/test_main.py",
    "cli/options": "integration/cli/test_main.py",
    "cli/service_managers": "system/service",
    "cli/feature_probe": "integration/cli/commands/test_features.py",
    "cli/upstream_probe": "integration/cli/commands/test_check.py",
    "codecs/codec": "a protocol and a dataclass",
    "codecs/decoder": "a protocol",
    "codecs/openai/tool_call_formats": "data; unit/codecs/openai/test_text_tool_calls.py",
    "codecs/responses/output_items": "unit/codecs/responses/test_stream.py",
    "codecs/translation/conversation": "unit/codecs/openai/test_messages.py",
    "codecs/translation/dialect": "data; unit/providers/test_registry.py",
    "codecs/translation/request_fields": "unit/codecs/openai/test_request.py",
    "codecs/translation/translated": "unit/codecs/openai/test_request.py",
    "codecs/translation/translation_notes": "unit/codecs/openai/test_request.py",
    "config/keys": "data; unit/config/test_models.py",
    "config/request_classes": "names only",
    "config/trust": "security/test_trust.py",
    "daemon/demo/reply": "integration/daemon/test_demo.py",
    "daemon/demo/server": "integration/daemon/test_demo.py",
    "cli/key_store": "integration/cli/commands/test_store.py",
    "daemon/key_sync": "integration/api/test_virtual_keys.py",
    "daemon/listener": "integration/proxy/test_limits.py",
    "api/peers": "system/test_workers.py",
    "daemon/controlling_terminal": "system/test_foreground.py",
    "daemon/workers/channel": "integration/daemon/workers/test_acceptor.py and system/test_workers.py",
    "daemon/workers/notices": "integration/daemon/workers/test_supervisor.py",
    "daemon/workers/place": "system/test_workers.py",
    "daemon/shared_state": "integration/api/test_shared_store.py and integration/daemon/test_replicas.py",
    "daemon/state_log": "system/test_lifecycle.py",
    "daemon/server": "system/test_lifecycle.py and system/test_stop_and_reload.py",
    "hookapi": "names only; integration/hooks/test_runner.py",
    "hooks/api": "dataclasses; integration/hooks/test_runner.py",
    "onboarding/found_key": "integration/api/test_entries.py and integration/cli/commands/test_add.py",
    "onboarding/imported": "unit/onboarding/test_foreign_files.py",
    "onboarding/models_file": "integration/api/test_entries.py and integration/cli/commands/test_add.py",
    "onboarding/targets": "integration/api/test_entries.py and integration/cli/commands/test_add.py",
    "providers/google": "data; unit/providers/test_vendors.py",
    "providers/hosted": "data; unit/providers/test_vendors.py",
    "providers/hosted_china": "data; unit/providers/test_vendors.py",
    "providers/openai_family": "data; unit/providers/test_vendors.py",
    "providers/message_rules": "unit/providers/test_error_rules.py and unit/providers/test_refusals.py",
    "providers/parameter_rules": "unit/providers/test_error_rules.py and unit/providers/test_refusals.py",
    "providers/thinking_rules": "unit/providers/test_error_rules.py and unit/providers/test_refusals.py",
    "providers/tool_rules": "unit/providers/test_error_rules.py and unit/providers/test_refusals.py",
    "providers/profile": "a dataclass; unit/providers/test_registry.py",
    "providers/servers": "data; unit/providers/test_vendors.py",
    "proxy/active_call": "integration/proxy/test_client_response.py",
    "proxy/attempt": "integration/proxy/test_faults.py",
    "proxy/attempt_direct": "integration/direct and integration/proxy/test_faults.py",
    "proxy/attempt_translated": "integration/translated and integration/proxy/test_faults.py",
    "proxy/client_request": "integration/direct/test_unread.py",
    "proxy/on_behalf": "integration/proxy/test_auto_mode.py and integration/proxy/test_image_descriptions.py",
    "proxy/driver": "integration/proxy/test_client_response.py",
    "proxy/driver_direct": "integration/direct",
    "proxy/driver_translated": "integration/translated",
    "proxy/run_attempt": "integration/proxy/test_faults.py and integration/proxy/test_finisher.py",
    "proxy/upstream_reader": "unit/proxy/test_pump.py and integration/proxy/test_faults.py",
    "proxy/keyed_attempt": "integration/proxy/test_key_pools.py",
    "proxy/window_check": "unit/telemetry/test_token_calibration.py",
    "proxy/relay": "integration/proxy and integration/config/test_routes.py",
    "recording/serializer": "integration/recording/test_recorder.py",
    "redaction": "security/test_redaction.py",
    "providers/upstream_search": "integration/proxy/test_upstream_search.py",
    "replay/responses": "integration/replay/test_replay.py",
    "replay/transcript": "integration/cli/commands/test_export.py",
    "replay/vocabulary": "data; unit/replay/test_anonymizer.py",
    "server_tools/auto_mode/conversation": "unit/server_tools/auto_mode/test_review.py",
    "server_tools/auto_mode/policy": "a text; unit/server_tools/auto_mode/test_review.py",
    "store/interface": "a protocol",
    "store/limits": "unit/proxy/test_key_ring.py",
    "store/opening": "unit/store/test_stores.py",
    "store/postgres_database": "unit/store/test_postgres.py",
    "store/postgres_schema": "unit/store/test_postgres.py",
    "store/records": "unit/store/test_stores.py",
    "store/spool": "unit/store/test_postgres.py",
    "telemetry/ledger_schema": "unit/telemetry/test_ledger.py",
    "telemetry/otel/conventions": "names only; integration/telemetry/otel/test_exporter.py",
    "telemetry/otel/sdk": "integration/telemetry/otel/test_exporter.py",
    "transport/faults": "names only; unit/transport/test_client.py",
    "transport/response": "unit/transport/test_pool.py",
}

MODULES = sorted(
    path.relative_to(ROOT / "proxyd").with_suffix("")
    for path in (ROOT / "proxyd").rglob("*.py")
    if not path.name.startswith("__")
)
TEST_MODULES = sorted(path for path in (ROOT / "tests").rglob("*.py"))


def has_test_module(module: str) -> bool:
    package, _, name = module.rpartition("/")
    folder = f"{package}/" if package else ""
    return any(
        (ROOT / "tests" / kind / f"{folder}test_{name}.py").is_file() for kind in ("unit", "integration")
    )


def test_a_module_has_a_test_module_of_its_name() -> None:
    def check(module: str) -> None:
        assert has_test_module(module) != (module in WITHOUT_TEST_MODULE), (
            f"write tests/unit/{module.rpartition('/')[0]}/test_{module.rpartition('/')[2]}.py, or give the reason "
            "in WITHOUT_TEST_MODULE; remove a reason that no longer holds"
        )

    check_rows([str(module) for module in MODULES], check)


def test_no_reason_is_given_for_a_module_that_is_gone() -> None:
    assert WITHOUT_TEST_MODULE.keys() <= {str(module) for module in MODULES}


def test_no_test_imports_from_another_test_module() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in TEST_MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("tests.")
        and (node.module or "").rpartition(".")[2].startswith("test_")
    ]
    assert found == []


def test_each_reason_names_tests_that_are_there() -> None:
    named = [
        place
        for reason in WITHOUT_TEST_MODULE.values()
        for place in re.findall(r"(?:unit|integration|system|security)/[\w/.]+", reason)
    ]
    assert len(named) > 30
    assert [place for place in named if not (ROOT / "tests" / place).exists()] == []


def test_free_ports_come_from_one_place() -> None:
    """A port that was bound and closed again can be taken by another process: see tests/support/ports.py."""
    closes = re.compile(
        r"unused_tcp_port|as (free|closed|sock):\n\s+[\w.]+(: int)? = \w+\.getsockname\(\)\[1\]\n"
    )
    found = [str(path.relative_to(ROOT)) for path in TEST_MODULES if closes.search(path.read_text("utf-8"))]
    assert found == [str(Path(__file__).relative_to(ROOT))]
