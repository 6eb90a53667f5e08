# Two commands matter: `make demo` and `make test`. Both set up what they need in .venv and touch nothing else,
# but for Debian's packages that real tests talk to, which `make test` installs when it runs as root.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# Tests share nothing but the machine, and half of their time they wait, so four run beside each other on two cores too.
WORKERS ?= -n 4 --dist worksteal
# The machines of two files at a time; the longest file, which sorts first, is begun first.
VM_WORKERS ?= -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: help
help:  ## This list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.ready: requirements/dev.txt pyproject.toml tools/make-venv
	@tools/make-venv "$(PYTHON)" "$(VENV)"
	@touch $@

.PHONY: venv
venv: $(VENV)/.ready  ## The development environment, from locked requirements with hashes

.PHONY: demo
demo: venv  ## The main job on sandboxed nodes: no root, no cluster, about a minute
	@$(BIN)/node-hardening-agent demo

.PHONY: test
test: venv  ## Every test but the real-kernel tier; as root installs Debian's packages that tests talk to
	@tools/test-packages
	@$(BIN)/python tools/kube-tools
	@$(BIN)/python -m pytest $(WORKERS) --durations 15

.PHONY: test-vm
test-vm: venv  ## The real-kernel tier, as root: virtual nodes with Debian's kernel (docs/testing.md)
	@tools/test-packages vm
	@$(BIN)/python -m pytest tests/vm $(VM_WORKERS) --durations 40

.PHONY: lint
lint: venv  ## ruff, mypy --strict, import-linter, retired words
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python tools/sync-manifest --check
	@$(BIN)/python tools/lint-words

.PHONY: mutate
mutate: venv  ## One-line faults in copies of the tree: which ones the unit tests catch (docs/testing.md)
	@$(BIN)/python tools/mutate

.PHONY: bench
bench: venv  ## The figures of docs/performance.md
	@$(BIN)/python -m bench

.PHONY: docs
docs: venv  ## Writes the generated parts of docs/ (JSON Schema, configuration reference, state diagram)
	@$(BIN)/python -m tools.config_schema > docs/agentconfig.schema.json
	@$(BIN)/python -m tools.config_reference > docs/configuration.md
	@$(BIN)/python -m tools.reboot_diagram
	@$(BIN)/python tools/sync-manifest

.PHONY: manifest
manifest: venv  ## Writes what daemonset.yaml and the chart repeat: profiles, alerts, the policy's schema
	@$(BIN)/python tools/sync-manifest

.PHONY: image
image: venv  ## Builds the image with docker, podman or buildah; BASE=… for another base, TAG=… for another name
	@tools/image "$(BIN)" $(TAG)

.PHONY: image-test
image-test: venv  ## Builds the image as root, from debootstrap, and runs it with podman and runc
	@tools/test-packages image
	@$(BIN)/python -m pytest tests/image

.PHONY: release
release: venv  ## A release's files in dist/release, from the last commit, the same bytes each time (docs/releasing.md)
	@$(BIN)/python tools/release $(if $(DOWNLOAD_URL),--download-url $(DOWNLOAD_URL))

.PHONY: lock
lock: venv  ## Locks requirements again (hashes, no index addresses)
	@tools/lock "$(BIN)"

.PHONY: clean
clean:  ## Removes what the other targets made
	rm -rf $(VENV) dist build .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis
