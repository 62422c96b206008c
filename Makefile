# The only command surface; CI calls these targets too. `make` lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
INSTALLED := $(VENV)/.installed

BOOTSTRAP ?= localhost:9092
PARTITIONS ?= 2
ARGS ?=
WORKERS ?= 2

# Everything here speaks to this machine only; window times never depend on the machine's zone.
export SPARK_LOCAL_IP ?= 127.0.0.1

.PHONY: help install demo live kafka cluster topics generate load inspect run watch service totals test test-service test-bench \
	test-faults test-rollups test-secure test-cluster test-yarn test-object-store test-connect test-matrix lint format \
	bench bench-quick bench-late \
	bench-history bench-service bench-sketches bench-soak \
	package test-platforms reference docs test-docs up down docker-test pins sbom release test-release licences audit clean

help: ## show this list
	@awk -F ':.*## ' '/^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ Start
install: $(INSTALLED) ## make .venv/ with Spark, the Kafka connector, Delta, and an embedded Kafka

$(INSTALLED): pyproject.toml requirements-dev.txt conf/packages.txt conf/jars.lock conf/ivysettings.xml \
		tools/install_spark.py tools/jar_lock.py tools/packages.py
	@tools/check_machine.sh $(PYTHON)
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "install: Python packages (PySpark is large: a minute or two the first time)"
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.txt
	@$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@$(PY) tools/install_spark.py
	@touch $@

demo: $(INSTALLED) ## all in one: embedded Kafka, generated events, the job, its counts beside the exact ones
	@$(PY) tools/run_demo.py $(ARGS)

live: $(INSTALLED) ## a page that moves: embedded Kafka, live events, both jobs, the query service; Ctrl-C stops all
	@exec $(PY) tools/run_live.py $(ARGS)

##@ The parts (BOOTSTRAP=localhost:9092, ARGS="more flags")
kafka: $(INSTALLED) ## run an embedded Kafka on port 9092 until Ctrl-C (ARGS="--port 9093 --data DIR")
	@$(PY) tools/kafka_broker.py run $(ARGS)

cluster: $(INSTALLED) ## run an embedded Kafka of three brokers until Ctrl-C (ARGS="--topic in:2 --topic out")
	@$(PY) tools/kafka_cluster.py $(ARGS)

topics: $(INSTALLED) ## create the topics in and out (PARTITIONS=2)
	@$(PY) tools/kafka_broker.py topics --bootstrap-servers $(BOOTSTRAP) in:$(PARTITIONS) out $(ARGS)

generate: $(INSTALLED) ## write events to FILE=stream.jsonl.gz and the exact counts to exact.jsonl
	@$(PY) tools/generate_events.py --output $(or $(FILE),stream.jsonl.gz) --exact exact.jsonl $(ARGS)

load: $(INSTALLED) ## load FILE=stream.jsonl.gz into the topic in
	@$(PY) tools/load_events.py $(or $(FILE),stream.jsonl.gz) --bootstrap-servers $(BOOTSTRAP) $(ARGS)

inspect: $(INSTALLED) ## show what is in a topic, and the command that counts its users (ARGS="--topic events", ARGS=FILE)
	@$(PY) tools/inspect_topic.py $(if $(filter file,$(origin BOOTSTRAP)),,--bootstrap-servers $(BOOTSTRAP)) $(ARGS)

run: $(INSTALLED) ## spark-submit the job until Ctrl-C (ARGS="--output-mode update")
	@exec $(VENV)/bin/spark-submit jobs/unique_users.py --bootstrap-servers $(BOOTSTRAP) $(ARGS)

watch: $(INSTALLED) ## show the results as they come (ARGS="--exact exact.jsonl")
	@$(PY) tools/show_counts.py --bootstrap-servers $(BOOTSTRAP) --follow $(ARGS)

service: $(INSTALLED) ## answer questions over HTTP and show a page, from tables/ and Kafka (ARGS="--port 8050")
	@exec $(VENV)/bin/unique-users-service --bootstrap-servers $(BOOTSTRAP) $(ARGS)

totals: $(INSTALLED) ## unique users of every minute, hour, day, … year of FILE=stream.jsonl.gz, on an embedded Kafka
	@$(PY) tools/run_totals.py $(or $(FILE),stream.jsonl.gz) $(ARGS)

##@ Work on it
test: $(INSTALLED) ## run all tests, on a real Kafka (ARGS="-k late", WORKERS=0 for one process)
	@$(PY) -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-bench: $(INSTALLED) ## test the benchmarks: their arithmetic, and that each makes its chapter and plots out of rows
	@$(PY) -m pytest tests/bench $(ARGS)

test-faults: $(INSTALLED) ## kills, three brokers, a bad network, faults at random (ARGS="-k random_schedules --minutes 60 --seed 7")
	@$(PY) -m pytest tests/fault -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(INSTALLED) ## ruff, mypy and the layers (import-linter), as CI runs them
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@PYTHONPATH=jobs:service $(VENV)/bin/lint-imports --config pyproject.toml

format: $(INSTALLED) ## let ruff format and fix
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: $(INSTALLED) ## measure everything and write benchmarks/REPORT.md (ARGS="throughput latency --rounds 5")
	@PYTHONPATH=tools $(PY) benchmarks/run.py $(ARGS)

bench-quick: $(INSTALLED) ## the same, small and once, into build/bench-quick/
	@PYTHONPATH=tools $(PY) benchmarks/run.py --quick $(ARGS)

bench-late: $(INSTALLED) ## measure what the watermark costs in delay and saves in loss (ARGS="--plot lateness.svg")
	@PYTHONPATH=tools $(PY) benchmarks/lateness.py $(ARGS)

bench-sketches: $(INSTALLED) ## measure error and size of sketches by --lg-k (ARGS="--help")
	@PYTHONPATH=tools $(PY) benchmarks/sketches.py $(ARGS)

bench-history: $(INSTALLED) ## count, merge and ask two years of minutes, compared with sets (ARGS="--days 30")
	@PYTHONPATH=tools $(PY) benchmarks/history.py $(ARGS)

test-rollups: $(INSTALLED) ## test the rollup job on real Delta tables, and kill it 20 times (minutes)
	@$(PY) -m pytest tests/rollups $(ARGS)

$(VENV)/.browser: $(INSTALLED)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[browser]'
	@touch $@

test-service: $(VENV)/.browser ## test the query service: answers, API fuzzed, its page in a browser (needs chromium), with both jobs
	@$(PY) -m pytest tests/service $(ARGS)

test-secure: $(INSTALLED) ## test Kafka with TLS, SASL/SCRAM and ACLs: rights, refusals, and that no secret gets out
	@$(PY) -m pytest tests/secure $(ARGS)

test-cluster: $(INSTALLED) ## test a Spark standalone cluster that loses a worker, and how the job ends when it is told to or killed
	@$(PY) -m pytest tests/cluster $(ARGS)

test-yarn: package ## test both jobs on Hadoop's YARN by the EMR step's line; downloads YARN the first time (minutes)
	@$(PY) -m pytest tests/yarn $(ARGS)

test-object-store: $(INSTALLED) ## test both jobs and the service on an S3-compatible store, SeaweedFS, which Go builds
	@$(PY) tools/object_store.py install
	@$(PY) -m pytest tests/object_store $(ARGS)

$(VENV)/.connect: $(INSTALLED)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[connect]'
	@touch $@

test-connect: $(VENV)/.connect ## test the job as a client of a local Spark Connect server
	@$(PY) -m pytest tests/connect $(ARGS)

$(VENV)/.docs: $(INSTALLED)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

reference: $(INSTALLED) ## write the pages of docs/reference/ from the code
	@$(PY) tools/make_reference.py

docs: reference $(VENV)/.docs ## write the reference pages, execute the notebook, build the documentation into build/site/
	@$(PY) tools/render_notebook.py
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml
	@echo "docs: build/site/index.html"

test-docs: $(VENV)/.docs ## execute the notebook, and test the documentation as a built site
	@$(PY) -m pytest tests/docs $(ARGS)

bench-service: $(INSTALLED) ## measure the query service on two years of minutes (ARGS="--days 30 --rounds 0")
	@PYTHONPATH=tools $(PY) benchmarks/service.py $(ARGS)

bench-soak: $(INSTALLED) ## 20 minutes at the highest steady rate: memory, state, checkpoint (ARGS="--minutes 5 --plot soak.svg")
	@PYTHONPATH=tools $(PY) benchmarks/soak.py $(ARGS)

##@ Ship it
package: $(INSTALLED) ## build dist/*.whl, and the same as dist/uniques.zip for spark-submit --py-files
	@rm -rf dist build
	@$(PY) -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .
	@cp dist/unique_users-*.whl dist/uniques.zip
	@rm -rf build && ls -1 dist/*

$(VENV)/.platforms: $(INSTALLED)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[platforms]'
	@touch $@

RELEASE := $(VENV)/.release
PINS := $(PY) -m uv pip compile pyproject.toml --quiet --generate-hashes --no-emit-index-url \
	--custom-compile-command "make pins"
PINS_IMAGE := $(PINS) --python-version 3.11

$(RELEASE): $(INSTALLED)
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[release]'
	@touch $@

pins: $(RELEASE) ## write the hashes of all packages: requirements-dev.txt, docker/requirements*.txt, conf/jars.lock
	@$(PINS) --universal --python-version 3.10 --extra dev --output-file requirements-dev.txt
	@$(PINS_IMAGE) --extra metrics --extra registry --extra spark --output-file docker/requirements.txt
	@$(PINS_IMAGE) --extra tools --output-file docker/requirements-generator.txt
	@$(PINS_IMAGE) --extra service --output-file docker/requirements-service.txt
	@$(PY) tools/pin_jars.py

sbom: $(RELEASE) ## list what the image holds in dist/sbom.json (CycloneDX)
	@$(PY) tools/make_sbom.py dist/sbom.json

release: $(RELEASE) $(VENV)/.docs ## build all of a release from the last commit: packages, images, SBOM, site, notes, checksums
	@$(PY) tools/make_release.py $(ARGS)

test-release: $(RELEASE) $(VENV)/.docs ## build the release twice, from two clones, and compare every byte
	@$(PY) -m pytest tests/release $(ARGS)

licences: $(RELEASE) ## list the licences of the Python packages in the image
	@$(PY) -m piplicenses --format markdown --order name --packages \
		$$(sed -n 's/^\([a-z0-9-]*\)==.*/\1/p' docker/requirements.txt)

audit: $(RELEASE) ## ask the Python vulnerability database about the packages in the image
	@$(PY) -m pip_audit --requirement docker/requirements.txt --disable-pip --no-deps

COMPOSE := docker compose --file docker/compose.yaml --profile monitoring

up: ## Kafka, generated events and the job in Docker, with Prometheus and Grafana (RATE=500 events a second)
	$(COMPOSE) up --build --detach $(ARGS)

down: ## stop them; ARGS=--volumes removes the data and the checkpoint too
	$(COMPOSE) down $(ARGS)

test-matrix: $(INSTALLED) ## run the tests on Spark 4.2, 4.0 and 3.5 (SPARK="4.0.0 3.5.3", ARGS="-k late")
	@WORKERS=$(WORKERS) tools/test_matrix.sh $(ARGS)

docker-test: $(INSTALLED) ## build the image and test the job in it, with Docker or with buildah
	@docker/image.sh build
	@$(PY) -m pytest tests/docker $(ARGS)

test-platforms: package $(VENV)/.platforms ## test the packages in a clean environment, and every platform file against its vendor's schema
	@$(PY) -m pytest tests/platforms $(ARGS)

clean: ## remove .venv/, the downloads in .cache/, and what tests and tools left
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache jobs/*.egg-info checkpoint dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
