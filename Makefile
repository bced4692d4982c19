# The two main targets, on a fresh Debian or Ubuntu with Rust:
#   make demo    build, set up and run real services, showing each step
#   make test    the whole suite, as root and as an ordinary user
export PREFIX DESTDIR
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help quick demo test deps fresh build check fmt soak services probes static dist install bench

help: ## print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: deps-demo ## redis and mariadb on a real Debian: run, use, destroy and restore them, showing each step
	@scripts/demo.sh

test: deps-test ## every test, as root and as an ordinary user (as the caller only, if not root)
	@scripts/test.sh

deps: deps-test ## install the packages of demo and tests by apt; quick when nothing is missing

deps-%:
	@scripts/deps.sh $*

quick: ## check formatting and lints, run the unit tests: under a minute after a small change
	@scripts/quick.sh

build: ## compile a debug build
	cargo build --locked

check: ## check formatting, lints and dependencies
	@scripts/check.sh

fmt: ## format the code
	cargo fmt

soak: deps-test ## run the long tests: a hundred rounds of concurrent commands, large layers, peak memory
	@scripts/test.sh --soak

services: deps-test ## seventeen real services from build to upgrade: takes an hour (docs/services.md)
	@scripts/services.sh

probes: deps-test ## try to get out of the containers of svp, bubblewrap, docker and podman: a table (docs/security.md)
	@scripts/probes.sh

fresh: ## run demo and test in a new root file system, as on a machine without any trace of svp (as root)
	@scripts/fresh.sh demo test

static: ## build the static binary of a release, and verify that it is static
	@scripts/static.sh

dist: ## create the tarball, the .deb and SHA256SUMS, in target/dist
	@scripts/dist.sh

install: ## install svp, completions and manual pages below $(DESTDIR)$(PREFIX) (default /usr/local)
	@! command -v cargo >/dev/null || scripts/compile.sh build --locked --release
	@scripts/install.sh target/release/svp

bench: ## compare the speed of svp with other tools (needs hyperfine)
	@benches/bench.sh
