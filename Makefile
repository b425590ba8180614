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
	@tools/setup/setup.sh

.PHONY: host-binaries
host-binaries: setup ## The programs that go into the host image, into build/host
	@tools/build/host-binaries.sh

.PHONY: build
build: host-binaries ## Everything that `up` needs: the host's programs, components and stacks
	@tools/build/build.sh

.PHONY: patch-tools
patch-tools: setup ## What patches images: Trivy, Copa, BuildKit; the first time takes minutes
	@tools/build/patch-tools.sh

.PHONY: up
up: build patch-tools ## The local environment: a container group that serves on a hardened host
	@tools/stack/up.sh
	@tools/stack/show.sh

.PHONY: down
down: ## Removes what `up` made, and only that; keys and passphrase stay
	@tools/stack/down.sh

.PHONY: generate
generate: setup ## Code generated from the protobuf contract and the provider's schema
	@tools/build/generate.sh

.PHONY: format
format: setup ## Formats everything
	@tools/check/format.sh

.PHONY: check
check: setup ## Formatters, linters, type checks, contracts, generated code
	@tools/check/check.sh

.PHONY: test
test: ## All tests, lowest layer first; the last line is the sum
	@tools/test/test.sh --whole go unit tools conformance engine contract consumer patch e2e

.PHONY: test-all
test-all: ## All tests at full length, in the slices of test/slices.txt; SLICE=1 runs one, in at most an hour
	@tools/test/test-all.sh $(SLICE)

.PHONY: acceptance-baseline
acceptance-baseline: build ## After a whole `make test`: the acceptance rows that it holds from now on must hold
	@node dist/test/support/acceptance/held.js --add

.PHONY: e2e
e2e: ## The tests on a real host, and the tables of acceptance rows they fill
	@tools/test/test.sh e2e

.PHONY: patch
patch: ## The tests of patching images, with real scans, patches and registries, and the table of their rows
	@tools/test/test.sh patch

.PHONY: attack
attack: setup ## Attacks on real hosts, with negative controls; ends with the table of their rows
	@tools/test/attack.sh

.PHONY: metal
metal: build ## Installs a host on an emulated machine over SSH, interrupted and repeated: row M1
	@tools/test/test.sh metal

.PHONY: conformance
conformance: setup ## The network at full length: policies against the oracles of Cyclonus and network-policy-api, the datapath; ends with its table
	@tools/test/conformance.sh

.PHONY: fuzz
fuzz: build ## A million verdicts of random policies and millions of damaged frames against other readings of them
	@tools/test/fuzz.sh

.PHONY: bench
bench: bench-seal bench-preview bench-groups ## Times of `up`: nothing cached, only the stack gone, again; the other bench-*
	@tools/bench/bench-up.sh

.PHONY: bench-seal
bench-seal: build ## Time to seal an image beside that of mkfs.erofs and veritysetup alone; needs no host
	@tools/bench/bench-seal.sh

.PHONY: bench-groups
bench-groups: build ## On a host: starting a group sealed beside unsealed; memory and devices of 100 groups
	@node node_modules/vitest/vitest.mjs run --project bench test/layers/bench/groups.test.ts

.PHONY: bench-preview
bench-preview: setup ## Time of a preview with each cloud's package beside that of an empty program, limit 1.5; needs no host
	@tools/build/build.sh
	@node node_modules/vitest/vitest.mjs run --project bench test/layers/bench/preview.test.ts

.PHONY: bench-datapath
bench-datapath: ## Network: the ladder from loopback to our datapath, and how rules scale; needs root and a quiet machine
	@tools/bench/bench-datapath.sh

.PHONY: package
package: build ## The npm package with plugin and host binaries, into build/package
	@tools/build/package.sh

.PHONY: clean
clean: ## Removes what was built in this clone; never keys, stacks or machines
	rm -rf build dist
