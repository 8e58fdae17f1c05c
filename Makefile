# Every job of the project is a target here; CI calls nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
# uv is taken from the PATH, else installed into a folder of our own.
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
BIN := .venv/bin
CRD := deploy/helm/crds/templates/managedmodels.yaml
export UV_PYTHON_DOWNLOADS ?= never
export UV_LINK_MODE ?= copy
export MLFLOW_DISABLE_TELEMETRY := true

##@ Use
.PHONY: run demo
run: .venv/.ready ## Start the platform on loopback, close the loop on real data, keep serving until Ctrl-C
	$(BIN)/modelyard demo electricity

demo: .venv/.ready ## The same, finite; the last line of standard output is one JSON object
	$(BIN)/modelyard demo electricity --exit --json

##@ Test
.PHONY: test test-fast test-slow test-cluster test-member test-charts test-whole
# What starts the whole platform has both cores for itself; everything else shares them.
test: test-fast ## The suite: units, conformance, real processes, the platform from the command line; a quarter of an hour
	$(BIN)/pytest -m "acceptance and not slow and not cluster"

test-fast: .venv/.ready ## Everything but the tests that start the whole platform
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not cluster and not acceptance"

test-slow: .venv/.ready ## What takes longer: the demo and its controls, the dashboards of a live run, restores, services killed at each stage
	$(BIN)/pytest -m "slow and not cluster"

# The tests on a cluster come first: they name theirs to those that live with their services.
test-cluster: .venv/.ready ## Images and charts for real: a container engine, a Kubernetes (KUBECONFIG's, else one made here)
	$(BIN)/pytest -m cluster tests/cluster services $(filter-out tests/cluster/,$(sort $(wildcard tests/*/)))

test-member: .venv/.ready ## The tests of one member: make test-member MEMBER=libs/stats
	$(BIN)/pytest -n 2 --dist loadfile -m "not slow and not cluster and not acceptance" $(MEMBER)

test-charts: .venv/.ready ## The charts and what Argo CD makes of them, rendered by both majors of Helm
	$(BIN)/pytest -n 2 --dist loadfile -m "not cluster" tests/chart tests/argocd

test-whole: .venv/.ready ## What looks at the whole: architecture, documents, pipelines, the platform as processes
	$(BIN)/pytest -m "not slow and not cluster" --ignore=tests/chart --ignore=tests/argocd tests
	$(BIN)/pytest -m "acceptance and not slow and not cluster" cli

##@ Check
.PHONY: check lint types layers generated fmt pictures
check: lint types layers generated ## Lint, types, layers, generated files fresh

lint: .venv/.ready ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.ready ## mypy, strict, on all of src
	$(BIN)/mypy

layers: .venv/.ready ## import-linter: the map of the house, executable
	$(BIN)/lint-imports

generated: .venv/.ready ## The lock, schemas, the CRD, charts' values, dashboards, rules and pipelines are what their sources say
	$(UV) lock --check
	$(BIN)/python -m modelyard_contracts.schemas --check libs/contracts/tests/goldens
	$(BIN)/python -m modelyard_contracts.crd --check $(CRD)
	$(BIN)/python -m tools.charts.write --check
	$(BIN)/python -m tools.observability.write --check
	$(BIN)/python -m tools.stubs --check
	$(BIN)/python -m tools.ci --check

fmt: .venv/.ready ## Format, mend what can be mended, and write the generated files again
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m modelyard_contracts.schemas libs/contracts/tests/goldens
	$(BIN)/python -m modelyard_contracts.crd $(CRD)
	$(BIN)/python -m tools.charts.write
	$(BIN)/python -m tools.observability.write
	$(BIN)/python -m tools.ci
	$(BIN)/python -m tools.stubs

pictures: .venv/.ready ## Draw the dashboards of a live run into docs/images
	$(BIN)/python -m tools.observability.render docs/images

##@ Deploy
.PHONY: images image charts secrets
images: .venv/.ready ## Build all images with the engine that is here, and print what each adds to its base
	$(BIN)/python -m tools.images

image: .venv/.ready ## Build one image: make image IMAGE=registry
	$(BIN)/python -m tools.images $(IMAGE)

charts: .venv/.ready ## Package the Helm charts into build/charts
	$(BIN)/python -m tools.charts.build build/charts

secrets: .venv/.ready ## Make the secrets of docker-compose.yml, once
	$(BIN)/python -m tools.compose.secrets

##@ Deliver
.PHONY: sbom scan models models-plan push scan-image sign publish publish-charts bump promotion ci-image
sbom: .venv/.ready ## Bills of materials of all images from the lock, CycloneDX, into build/sbom
	$(BIN)/python -m tools.ci.sbom build/sbom --uv $(UV)

# Vulnerabilities that do not concern us: --ignore-vuln ID, each with its reason in a comment here.
WAIVED :=
scan: .venv/.ready ## Look every package of the lock up in OSV's database of vulnerabilities (OSV_URL: in a mirror of it)
	@mkdir -p build
	$(UV) export --quiet --frozen --all-packages --no-dev --no-emit-workspace --output-file build/requirements.txt
	$(BIN)/pip-audit --strict --disable-pip --require-hashes --requirement build/requirements.txt \
		--vulnerability-service osv $(if $(OSV_URL),--osv-url $(OSV_URL)) $(WAIVED)

models: .venv/.ready ## Validate every manifest that is in git
	@for path in $(wildcard examples/*/model.yaml deploy/argocd/envs/*/models); do \
		$(BIN)/modelyard validate --file "$$path" || exit; done

models-plan: .venv/.ready ## What a merge would do to the models of an environment: make models-plan ENVIRONMENT=dev
	$(BIN)/python -m tools.ci.models $(ENVIRONMENT) --since "$${CI_MERGE_REQUEST_DIFF_BASE_SHA:-HEAD}"

push: .venv/.ready ## CI: push a built image to CI_IMAGES, and note its digest: make push IMAGE=registry
	$(BIN)/python -m tools.ci.supply push $(IMAGE)

scan-image: .venv/.ready ## CI: trivy, on the images that were pushed
	$(BIN)/python -m tools.ci.supply scan $(IMAGE)

sign: .venv/.ready ## CI: cosign, on the digests that were pushed; attests the bills of materials
	$(BIN)/python -m tools.ci.supply sign $(IMAGE)

publish: .venv/.ready ## CI: copy what was pushed, with signatures, to RELEASE_IMAGES
	$(BIN)/python -m tools.ci.supply publish $(IMAGE)

publish-charts: .venv/.ready ## CI: push the charts to RELEASE_CHARTS
	$(BIN)/python -m tools.ci.supply charts

bump: .venv/.ready ## CI: pin the digests that were pushed in an environment: make bump ENVIRONMENT=dev
	$(BIN)/python -m tools.ci.deliver bump $(ENVIRONMENT)

promotion: .venv/.ready ## CI: a merge request with the rendered difference: make promotion FROM=dev TO=staging
	$(BIN)/python -m tools.ci.deliver promote $(FROM) $(TO)

ci-image: ## CI: build and push the image that the jobs of this section run in, TOOLS_IMAGE
	docker build --tag "$(TOOLS_IMAGE)" deploy/ci
	docker push --quiet "$(TOOLS_IMAGE)"

##@ Measure
.PHONY: bench bench-inference bench-quick bench-ablations bench-publish bench-drift
BENCH ?=
bench: bench-inference bench-drift ## All benchmarks; ratios measured side by side in one run

bench-inference: .venv/.ready ## Inference beside its peers and the limit of its server, at most 25 minutes (BENCH="--peers kserve ...")
	$(BIN)/python tools/bench_inference.py $(BENCH)

bench-quick: .venv/.ready ## The same in a minute: an empty echo, FastAPI with scikit-learn, and us
	$(BIN)/python tools/bench_inference.py --quick $(BENCH)

bench-ablations: .venv/.ready ## What each design choice of the inference service buys
	$(BIN)/python tools/bench_inference.py --ablations $(BENCH)

bench-publish: .venv/.ready ## Renew docs/performance.md and its records; on a machine that does nothing else
	$(BIN)/python tools/bench_inference.py --publish docs $(BENCH)
	$(BIN)/python tools/bench_inference.py --ablations --publish docs $(BENCH)

bench-drift: .venv/.ready ## Frozen-edge counters against recomputing from raw rows
	$(BIN)/python tools/bench_drift.py

##@ Set up
.PHONY: setup clean help
setup: .venv/.ready ## Make the virtual environment from the lock

.venv/.ready: pyproject.toml uv.lock $(wildcard libs/*/pyproject.toml services/*/pyproject.toml cli/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Modelyard needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	@if [ "$(UV)" = ".tools/bin/uv" ] && [ ! -x .tools/bin/uv ]; then \
		$(PYTHON) -m venv .tools && .tools/bin/python -m pip install --quiet uv; fi
	$(UV) sync --frozen --quiet --python $(PYTHON)
	@touch $@

clean: ## Remove the virtual environment, the caches and the platform's data
	rm -rf .venv .tools .modelyard .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

help: ## This text
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  \033[36m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
