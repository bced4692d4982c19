# Two commands do everything on a fresh Debian or Ubuntu with Rust:
#   make demo    build, set up and run real services, showing each step
#   make test    the whole suite, as root and as an ordinary user
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test deps fresh build check fmt soak static bench

help: ## print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: deps-demo ## redis and mariadb on a real Debian: run, use, destroy and restore them, showing each step
	@scripts/demo.sh

test: deps-test ## every test, as root and as an ordinary user (as the caller only, if not root)
	@scripts/test.sh

deps: deps-test ## install the packages of demo and tests by apt; quick when nothing is missing

deps-%:
	@scripts/deps.sh $*

build: ## make a debug build
	cargo build --locked

check: ## check formatting, lints and dependencies
	@scripts/check.sh

fmt: ## format the code
	cargo fmt

soak: deps-test ## run the long tests: a hundred rounds of concurrent commands, large layers, peak memory
	@scripts/test.sh --soak

fresh: ## run demo and test in a new root file system, as on a machine without any trace of svp (as root)
	@scripts/fresh.sh demo test

static: ## make a static release binary and verify that it is static
	@scripts/static.sh

bench: ## compare the speed of svp with its peers (needs hyperfine)
	@benches/bench.sh
