# `make` shows the targets. The recipes keep everything under .venv/, out/ and the user's cache.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
PROJECTS := pyproject.toml client/pyproject.toml
GATEWAY := gateway/pyproject.toml requirements/gateway.lock
# Tests run in two processes: one that has done its part takes tests from the other. Those with
# servers of their own do not: on two cores the storms of one keep the other's from starting in time.
# With a GPU, which both would use at once: PYTEST_ARGS="-n 0".
PARALLEL := -n 2 --dist worksteal
# Where a server stopped answering, each test that waits for it takes minutes.
MOST_FAILURES := --maxfail 12

.PHONY: help venv demo gateway test e2e training soak readers lint sbom bench lock clean

help: ## Show this list
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/' | expand -t 14

venv: $(VENV)/runtime.stamp ## Make .venv with what the programs need

demo: $(VENV)/runtime.stamp ## Swap Newton's face onto a clip of Gauss: out/demo.mp4, out/demo.png (SWAPPER=NAME)
	@$(BIN)/python -m demo.run $(if $(SWAPPER),--swapper $(SWAPPER))

gateway: $(VENV)/gateway.stamp ## Serve the web page on 127.0.0.1:8080, with a server of its own
	@$(BIN)/python build_engines.py --target cpu
	@$(BIN)/frameswap gateway

test: $(VENV)/test.stamp ## Run the tests for every change, after installing what they need
	@$(BIN)/python -m pytest -m "not soak and not e2e and not training" $(PARALLEL) $(MOST_FAILURES) $(PYTEST_ARGS)

e2e: $(VENV)/test.stamp $(VENV)/deploy.stamp $(VENV)/gateway-e2e.stamp ## Run those with servers of their own: starts, kills, whole jobs, the demo
	@$(BIN)/python -m pytest -m "e2e and not soak" $(MOST_FAILURES) $(PYTEST_ARGS)

training: $(VENV)/training.stamp ## Run those of training/, which need PyTorch
	@$(BIN)/python -m pytest -m training tests/training $(PARALLEL) $(MOST_FAILURES) $(PYTEST_ARGS)

soak: $(VENV)/test.stamp $(VENV)/gateway-e2e.stamp ## Run the long ones: memory over ten thousand frames, ten thousand requests
	@$(BIN)/python -m pytest -m soak -o faulthandler_timeout=0 $(PYTEST_ARGS)

readers: ## Have ffmpeg, exiftool, promtool and chromium, which tests compare with or look through (Debian)
	@tests/install-readers

lint: $(VENV)/test.stamp ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/mypy

sbom: $(VENV)/deploy.stamp ## Write out/sbom.json: every Python package that the image holds
	@mkdir -p out
	@$(VENV)/deploy/bin/cyclonedx-py requirements --output-reproducible --of JSON \
	    -o out/sbom.json requirements/runtime.lock

bench: $(VENV)/bench.stamp ## Measure whole jobs beside the classic per-frame pipeline
	@$(BIN)/python build_engines.py --target cpu
	@$(BIN)/python -m bench $(BENCH_ARGS)

lock: $(VENV)/made.stamp ## Write requirements/*.lock again (UPGRADE=1: take the newest versions)
	@$(PIP) --require-hashes -r requirements/uv.lock
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python requirements/lock.py $(if $(UPGRADE),--upgrade)

clean: ## Remove .venv, out and what was built into model_repository (the cache stays)
	rm -rf $(VENV) out build *.egg-info client/*.egg-info gateway/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find model_repository -mindepth 3 -path '*/1/*' ! -name .gitkeep -delete
	rm -rf model_repository/*/configs

$(VENV)/made.stamp:
	@requirements/make-venv $(VENV)
	@touch $@

$(VENV)/runtime.stamp: requirements/runtime.lock $(PROJECTS) $(VENV)/made.stamp
	@echo "installing what the programs need into $(VENV)"
	@$(PIP) --require-hashes -r requirements/runtime.lock
	@$(PIP) --no-deps --no-build-isolation -e ./client -e .
	@touch $@

$(VENV)/gateway.stamp: $(GATEWAY) $(VENV)/runtime.stamp
	@echo "installing what the gateway needs into $(VENV)"
	@$(PIP) --require-hashes -r requirements/gateway.lock
	@$(PIP) --no-deps --no-build-isolation -e ./gateway
	@touch $@

# A browser's driver beside the rest; what tries the gateway by its description alone, apart.
$(VENV)/gateway-e2e.stamp: requirements/gateway-test.lock requirements/gateway-tools.lock $(VENV)/test.stamp
	@echo "installing what the tests of the web page need into $(VENV)"
	@$(PIP) --require-hashes -r requirements/gateway-test.lock
	@requirements/make-venv $(VENV)/gateway-tools
	@$(VENV)/gateway-tools/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
	    --require-hashes -r requirements/gateway-tools.lock
	@touch $@

$(VENV)/test.stamp: requirements/test.lock requirements/without-dependencies.lock $(VENV)/gateway.stamp
	@echo "installing what the tests need into $(VENV)"
	@$(PIP) --require-hashes -r requirements/test.lock
	@$(PIP) --require-hashes --no-deps -r requirements/without-dependencies.lock
	@touch $@

$(VENV)/deploy.stamp: requirements/deploy.lock $(VENV)/made.stamp
	@echo "installing what reads charts and Dockerfiles into $(VENV)/deploy"
	@requirements/make-venv $(VENV)/deploy
	@$(VENV)/deploy/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
	    --require-hashes -r requirements/deploy.lock
	@touch $@

# The oracle's environment stands apart: mediapipe wants NumPy 1. `make $(VENV)/oracle-mediapipe.stamp`
$(VENV)/oracle-mediapipe.stamp: requirements/oracle-mediapipe.lock $(VENV)/made.stamp
	@echo "installing mediapipe, an oracle of the tests, into $(VENV)/oracle-mediapipe"
	@requirements/make-venv $(VENV)/oracle-mediapipe
	@$(VENV)/oracle-mediapipe/bin/python -m pip --disable-pip-version-check --no-input install --quiet \
		--require-hashes -r requirements/oracle-mediapipe.lock
	@touch $@

$(VENV)/training.stamp: requirements/training.lock $(VENV)/test.stamp
	@echo "installing PyTorch into $(VENV)"
	@$(PIP) --require-hashes -r requirements/training.lock
	@touch $@

$(VENV)/bench.stamp: requirements/bench.lock $(VENV)/runtime.stamp
	@$(PIP) --require-hashes -r requirements/bench.lock
	@touch $@
