# Every target works in a fresh clone. `make help` lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# The Pulumi stack that `up` and `down` mean; PALISADE_HOME, PALISADE_STATE and PALISADE_CACHE move the directories.
export STACK ?= local

.PHONY: help
help: ## This list
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' $(MAKEFILE_LIST) | column -t -s '|'

.PHONY: setup
setup: ## What this machine lacks: Debian packages, Node.js, npm packages, Pulumi
	@tools/setup.sh

.PHONY: host-binaries
host-binaries: setup ## The programs that go into the host image, into build/host
	@tools/host-binaries.sh

.PHONY: build
build: host-binaries ## Everything that `up` needs: the host's programs, components and stacks
	@tools/build.sh

.PHONY: up
up: build ## The local environment: a container group that serves on a hardened host
	@tools/up.sh
	@tools/show.sh

.PHONY: down
down: ## Removes what `up` made, and only that; keys and passphrase stay
	@tools/down.sh

.PHONY: generate
generate: setup ## Code generated from the protobuf contract and the provider's schema
	@tools/generate.sh

.PHONY: format
format: setup ## Formats everything
	@tools/format.sh

.PHONY: check
check: setup ## Formatters, linters, type checks, contracts, generated code
	@tools/check.sh

.PHONY: test
test: ## All tests, lowest layer first; the last line is the sum
	@tools/test.sh go unit tools engine contract consumer e2e

.PHONY: e2e
e2e: ## The tests on a real host, and the tables of acceptance rows they fill
	@tools/test.sh e2e

.PHONY: attack conformance
attack conformance: setup ## The table of rows with what the last end-to-end tests of this commit observed
	@tools/acceptance.sh $@

.PHONY: bench
bench: ## Times of `up`: nothing cached, only the stack gone, again
	@tools/bench-up.sh

.PHONY: package
package: build ## The npm package with plugin and host binaries, into build/package
	@tools/package.sh

.PHONY: clean
clean: ## Removes what was built in this clone; never keys, stacks or machines
	rm -rf build dist
