# What a developer runs. Logic longer than a line or two lives in deploy/scripts/ or in Rust.
#   make demo    release build, a cluster, the guestbook, a rollout under load, everything cleaned up
#   make test    everything that CI runs
#   make bench   release build, the figures as a table
#   make check   quick: formatting, clippy, compile
#   make torture three servers under load, killed 200 times (CYCLES=n), paused, cut off … (PARTS="kill cut" for some)
#   make sim     the store's members under a seeded storm (SEEDS=200)
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
SEEDS ?= 200
TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)

.PHONY: help deps demo test bench check sim torture fmt release clean

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

deps: ## install the system packages that are missing (as root)
	@deploy/scripts/deps.sh build

release: deps ## the release binary, target/release/reeve
	$(CARGO) build --release --locked -p reeve

demo: release ## the guestbook on a one-node cluster, start to finish (KEEP=1 leaves it up)
	@deploy/scripts/deps.sh demo
	@deploy/scripts/demo.sh "$(TARGET)/release/reeve"

test: ## all tests
	@deploy/scripts/deps.sh test
	@deploy/scripts/test.sh

bench: release ## measure and print a table
	@deploy/scripts/bench.sh "$(TARGET)/release/reeve"

check: deps ## formatting, clippy, compile
	$(CARGO) fmt --all -- --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

sim: ## members of a store on bad networks and disks, SEEDS=200 times
	REEVE_SIM_SEEDS=$(SEEDS) $(CARGO) test --locked -p reeve-store --features sim --test sim

torture: release ## three servers under load: killed 200 times (CYCLES=n), paused, cut off, their disks and clocks spoilt; one that grows to five
	@deploy/scripts/deps.sh torture
	$(CARGO) build --release --locked -p reeve-tests --bin torture
	REEVE_BIN="$(TARGET)/release/reeve" "$(TARGET)/release/torture" $(or $(CYCLES),200) $(PARTS)
	REEVE_BIN="$(TARGET)/release/reeve" REEVE_SERVERS_MAX=5 $(CARGO) test --locked -p reeve-tests --test servers -- --nocapture grows

fmt: ## format all code
	$(CARGO) fmt --all

clean: ## remove what was built
	$(CARGO) clean
