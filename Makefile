# `make demo` and `make test` do their own set-up and can be run again.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

ROOT := $(CURDIR)
export CARGO_TARGET_DIR ?= $(ROOT)/target
export MARRAM_TOOLCHAIN ?= $(CARGO_TARGET_DIR)/guest-toolchain
export MARRAM_ENGINES ?= $(CARGO_TARGET_DIR)/engines
export MARRAM_GUESTS ?= $(CARGO_TARGET_DIR)/guests
# Two cores are the smallest machine that this is built on.
export CARGO_BUILD_JOBS ?= $(shell nproc)
MARRAM := $(CARGO_TARGET_DIR)/release/marram
CARGO := cargo

.PHONY: help
help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: setup
setup: ## Install what the build and the tests need from the system's packages
	@scripts/setup.sh

.PHONY: engines
engines: setup ## Build the language engines that go into the binary
	@scripts/guest-toolchain.sh > /dev/null
	@scripts/build-engines.sh > /dev/null

.PHONY: build
build: engines ## Build the binary, with its engines
	@echo "build: $(MARRAM)"
	@$(CARGO) build --release --locked -p marram

.PHONY: dist
dist: engines ## Build the binary to install, optimized as a whole and by a profile (half an hour; MARRAM_PROFILE=0: half of it)
	@echo "dist: $(CARGO_TARGET_DIR)/dist/marram"
	@scripts/dist.sh -p marram

.PHONY: guests
guests: setup ## Build the guests that the tests run
	@scripts/guest-toolchain.sh > /dev/null
	@scripts/build-guests.sh > /dev/null

.PHONY: demo
demo: ## Serve a small shop, written in three languages (CHECK=1: verify it and stop)
	@scripts/demo.sh $(if $(filter-out 0,$(CHECK)),--check)

.PHONY: test
test: build guests clients lint unit ## Everything that a change has to pass
	@scripts/demo.sh --check
	@echo "test: all passed"

.PHONY: clients
clients: setup ## Install the MQTT and S3 clients of others that the tests talk to, and photos
	@scripts/mqtt-clients.sh
	@scripts/s3-clients.sh
	@scripts/photos.sh

.PHONY: unit
unit: ## The tests, on what is built; a failure does not hide those that come after it
	@$(CARGO) test --release --locked --workspace --no-fail-fast

.PHONY: soak
soak: build guests ## Kill nodes and stores under load, thousands of times (half an hour)
	@MARRAM_KILLS=2000 $(CARGO) test --release --locked -p marram --test binary losses
	@MARRAM_KILLS=200 $(CARGO) test --release --locked -p marram --test binary kill
	@MARRAM_CRASH_ROUNDS=400 $(CARGO) test --release --locked -p marram-store crash

.PHONY: bench
bench: dist ## Measure it beside its peers; `make bench ONLY=fresh,js` measures some rows
	@benches/peers.sh
	@scripts/guest-toolchain.sh > /dev/null
	@MARRAM_SKIP_PLAIN=1 scripts/build-guests.sh > /dev/null
	@MARRAM_PROFILE=$(filter 0,$(MARRAM_PROFILE)) scripts/dist.sh -p marram -p marram-gateway --example bare_hyper
	@MARRAM_PROFILE=$(filter 0,$(MARRAM_PROFILE)) scripts/dist.sh -p marram -p marram-mqtt --example mqtt_load
	@. $(MARRAM_TOOLCHAIN)/env.sh && python3 benches/bench.py --only "$(ONLY)"

.PHONY: lint
lint: ## Format, clippy, crate directions, licences, generated pages
	@$(CARGO) fmt --all --check
	@$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	@$(CARGO) xtask check

.PHONY: docs
docs: build ## Write the generated pages of the book
	@$(CARGO) xtask docs

.PHONY: fmt
fmt: ## Format the code
	@$(CARGO) fmt --all
