# What a person types here. `make` alone lists it.

CARGO  ?= cargo
PYTHON ?= $(firstword $(foreach python,python3.11 python3,$(if $(shell command -v $(python)),$(python))))
TARGET := $(or $(CARGO_TARGET_DIR),target)
SUDO   := $(if $(filter-out 0,$(shell id -u)),sudo)

# Most of an end-to-end test is waiting for long polls, so more of them run at once than there are cores.
export RUST_TEST_THREADS ?= 8

# How far `make flat` goes.
MESSAGES ?= 10000000

LOCALSTACK := $(TARGET)/localstack-venv/ready

# Where PostgreSQL's server may be: on PATH, or where packages put it without telling PATH.
INITDB := $(firstword $(shell command -v initdb) $(wildcard \
	/usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb /usr/libexec/postgresql*/initdb \
	/opt/homebrew/opt/postgresql@*/bin/initdb /usr/local/opt/postgresql@*/bin/initdb \
	/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin/initdb \
	/Applications/Postgres.app/Contents/Versions/*/bin/initdb /usr/local/pgsql/bin/initdb))

.PHONY: help demo test soak lint bench flat postgres localstack

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: postgres ## 10,000 messages from a queue of its own into a Postgres of its own
	$(CARGO) run --release --locked -- demo

test: postgres localstack ## all tests, against real servers
	$(CARGO) test --locked --features crash-points

soak: postgres ## 200 processes killed at random moments over one queue; PGSLUICE_SOAK_SEED repeats one
	PGSLUICE_SOAK_ROUNDS=$${PGSLUICE_SOAK_ROUNDS:-200} $(CARGO) test --locked --features crash-points --test it soak:: -- --nocapture

lint: ## formatting, lints and links in the documentation; a warning is an error
	$(CARGO) fmt --check
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --locked --no-deps
	$(CARGO) clippy --locked --all-targets --features crash-points -- -D warnings
	$(CARGO) clippy --locked --all-targets --no-default-features -- -D warnings

bench: postgres ## benchmarks of each stage; results in target/criterion
	$(CARGO) bench --locked

flat: postgres ## memory and rows a second up to MESSAGES (10,000,000)
	$(CARGO) bench --locked --bench flat -- --messages $(MESSAGES)

postgres: ## install the PostgreSQL server, where it is missing
ifeq ($(INITDB),)
	@echo "PostgreSQL's server (initdb) was not found; installing it"
	@if command -v apt-get >/dev/null; then \
		$(SUDO) apt-get update && $(SUDO) apt-get install --yes --no-install-recommends postgresql; \
	elif command -v brew >/dev/null; then \
		brew install postgresql@17; \
	else \
		echo "neither apt-get nor brew is here; install PostgreSQL 14 or newer, server included" >&2; exit 1; \
	fi
endif

localstack: $(LOCALSTACK) ## install LocalStack, a second queue server for the tests, into target/

$(LOCALSTACK): tests/localstack/requirements.txt
	@test -n "$(PYTHON)" || { echo "python3 was not found; install Python 3.11 or newer, with venv" >&2; exit 1; }
	@rm -rf $(@D)
	@mkdir -p $(dir $(@D))
	@# Debian ships venv apart from Python.
	@$(PYTHON) -m venv $(@D) || { command -v apt-get >/dev/null && echo "installing python3-venv" \
		&& $(SUDO) apt-get update && $(SUDO) apt-get install --yes python3-venv && $(PYTHON) -m venv --clear $(@D); }
	@echo "installing LocalStack into $(@D): half a minute, 240 MB"
	@$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@
