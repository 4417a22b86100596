# Everything a developer runs. Each step prints its name and wall time; nothing that is up to date is done again.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build server wheel test pythons check docs fix demo serve bench fuzz torture planted

STEP := scripts/step
# Tests are compiled once: with everything that a feature adds, but for the scheduler's, which takes the place of something. The
# bindings have theirs in Python.
TESTED := --workspace --exclude data-bridge --features data-bridge-kv-server/object-store
SCHEDULED := -p data-bridge-kv --features interleave --test interleave
export NO_MKDOCS_2_WARNING := 1
PORT ?= 7379
ADMIN_PORT ?= 9121
FEATURES ?=

help: ## this list
	@sed -nE 's/^([a-z]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 10

build: server wheel ## release server at target/release/data-bridge-kv, wheel installed into .venv

# Both packages are named so that the wheel, which links the server too, finds its dependencies built.
server:
	@scripts/preflight rust linker
	@$(STEP) "server" cargo build --release --locked -p data-bridge-kv-server -p data-bridge --bin data-bridge-kv $(FEATURES:%=--features data-bridge-kv-server/%)

wheel:
	@scripts/preflight rust linker python
	@$(STEP) "python environment" scripts/venv dev
	@$(STEP) "wheel" scripts/wheel

test: build ## all tests: Rust (unit, integration, documentation), Python
	@$(STEP) "storage environment" scripts/venv storage
	@if command -v cargo-nextest >/dev/null; then \
		$(STEP) "rust tests" cargo nextest run $(TESTED) --locked --no-fail-fast; \
	else \
		$(STEP) "rust tests" cargo test $(TESTED) --locked --no-fail-fast --lib --bins --tests; \
	fi
	@if command -v cargo-nextest >/dev/null; then \
		$(STEP) "rust tests under a scheduler" cargo nextest run $(SCHEDULED) --locked --no-fail-fast; \
	else \
		$(STEP) "rust tests under a scheduler" cargo test $(SCHEDULED) --locked --no-fail-fast; \
	fi
	@$(STEP) "rust documentation tests" cargo test $(TESTED) --locked --doc
	@$(STEP) "python tests" scripts/test-python

pythons: wheel ## the Python tests on the abi3 wheel and on every other CPython that is here
	@scripts/test-pythons

check: wheel ## what CI checks beside the tests; changes nothing
	@$(STEP) "guide environment" scripts/venv docs
	@scripts/check

docs: ## the guide at target/site/index.html
	@scripts/preflight python
	@$(STEP) "guide environment" scripts/venv docs
	@$(STEP) "guide" .venv/bin/mkdocs build --strict

fix: ## formats and applies what the linters can repair
	@scripts/preflight rust linker python
	@$(STEP) "python environment" scripts/venv dev
	@$(STEP) "format" cargo fmt --all
	@$(STEP) "clippy" cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	@$(STEP) "derived methods" scripts/derive-commands
	@$(STEP) "python lint" .venv/bin/ruff check --fix .
	@$(STEP) "python format" .venv/bin/ruff format .

demo: build ## both jobs of the store on real data, with a summary
	@$(STEP) "demo environment" scripts/venv demo
	@$(STEP) "demo data" scripts/demo-data
	@.venv/bin/python -m demo

serve: server ## the server on PORT (7379) and ADMIN_PORT (9121)
	@scripts/preflight port:127.0.0.1:$(PORT) port:127.0.0.1:$(ADMIN_PORT)
	@exec target/release/data-bridge-kv serve --listen 127.0.0.1:$(PORT) --admin 127.0.0.1:$(ADMIN_PORT)

bench: build ## measures us beside the peers; NAME=server runs one part
	@$(STEP) "bench environment" scripts/venv bench
	@.venv/bin/python -m bench $(NAME)

fuzz: ## libFuzzer on every decoder, FUZZ_SECONDS (60) each
	@scripts/preflight rust linker
	@scripts/fuzz

torture: wheel ## the reliability tests with fresh seeds for BUDGET (10m): docs/reliability/RESULTS.md
	@scripts/preflight rust linker
	@scripts/torture $(or $(BUDGET),10m)

planted: ## faults put into the product one at a time, each of which its test must find; NAME=log- some of them
	@scripts/preflight rust linker
	@scripts/planted $(NAME)
