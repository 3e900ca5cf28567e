# `make` shows the targets. The recipes keep everything under .venv/, out/ and the user's cache.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/bash

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install --quiet
PROJECTS := pyproject.toml client/pyproject.toml

.PHONY: help venv demo test e2e training soak readers lint sbom bench lock clean

help: ## Show this list
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9]+):.*## (.*)/  make \1\t\2/' | expand -t 14

venv: $(VENV)/runtime.stamp ## Make .venv with what the programs need

demo: $(VENV)/runtime.stamp ## Swap Newton's face onto a clip of Gauss: out/demo.mp4, out/demo.png (SWAPPER=NAME)
	@$(BIN)/python -m demo.run $(if $(SWAPPER),--swapper $(SWAPPER))

test: $(VENV)/test.stamp ## Run the tests for every change, after installing what they need
	@$(BIN)/python -m pytest -m "not soak and not e2e and not training" $(PYTEST_ARGS)

e2e: $(VENV)/test.stamp $(VENV)/deploy.stamp ## Run those with servers of their own: starts, kills, whole jobs, the demo
	@$(BIN)/python -m pytest -m "e2e and not soak" $(PYTEST_ARGS)

training: $(VENV)/training.stamp ## Run those of training/, which need PyTorch
	@$(BIN)/python -m pytest -m training tests/training $(PYTEST_ARGS)

soak: $(VENV)/test.stamp ## Run the long ones: memory over ten thousand frames
	@$(BIN)/python -m pytest -m soak $(PYTEST_ARGS)

readers: ## Have ffmpeg, exiftool and promtool, which tests compare with (Debian)
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
	rm -rf $(VENV) out build *.egg-info client/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
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

$(VENV)/test.stamp: requirements/test.lock requirements/without-dependencies.lock $(VENV)/runtime.stamp
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
