# Two commands do everything on a fresh Debian or Ubuntu with Rust:
#   make demo    build, set up and run a real service, each step shown
#   make test    the whole suite, as root and as an ordinary user
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test deps fresh build check fmt soak static bench

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: deps-demo ## redis and mariadb on a real Debian: run, talked to, wrecked and restored, each step shown
	@scripts/demo.sh

test: deps-test ## every test: as root and as an ordinary user (as the caller alone, if that is not root)
	@scripts/test.sh

deps: deps-test ## install by apt what demo and tests use; quick when it is all there

deps-%:
	@scripts/deps.sh $*

build: ## a debug build
	cargo build --locked

check: ## formatting, clippy, dependencies
	@scripts/check.sh

fmt: ## format the code
	cargo fmt

soak: deps-test ## the long tests: many svp at once a hundred times over, large layers, peak memory
	@scripts/test.sh --soak

fresh: ## demo and test in a new root file system, as on a machine that has never seen svp (as root)
	@scripts/fresh.sh demo test

static: ## a static release binary, and the proof that it is one
	@scripts/static.sh

bench: ## svp beside its peers, in one run (needs hyperfine)
	@benches/bench.sh
