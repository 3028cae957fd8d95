# Every target works on a bare Debian 12 machine: missing packages are installed first.
PRESET ?= release
BUILD := build/$(PRESET)
JOBS ?= $(shell nproc)
LISTEN ?= 127.0.0.1:8090
MODEL ?=
CLIP ?=
QUESTION ?=
SEED ?= 1
TARGET ?= all
SECONDS ?= 60

# A command whose output is filtered fails when it fails.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

.PHONY: help deps cuda-toolkit build test demo serve bench identity soak gpu lint examples soak-clients accuracy train-test long-prompt container deploy-check security fuzz dashboard clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 14

deps: ## install missing Debian packages
	@deploy/build/install_packages.sh

cuda-toolkit: ## install compiler and libraries for the CUDA worker from PyPI into build/cuda-toolkit
	@deploy/build/cuda_toolkit.sh

build: deps ## build everything (PRESET=release|dev|asan|tsan)
	cmake --preset $(PRESET) -Wno-dev
	cmake --build $(BUILD) -j $(JOBS)

test: ## build and run all tests; the last line counts them
	@deploy/build/install_packages.sh test_packages.txt
	@deploy/build/cuda_toolkit.sh --if-missing
	@tests/e2e/openai/venv.sh --if-missing >/dev/null
	@$(MAKE) --no-print-directory build PRESET=dev
	@tests/run_all.sh build/dev $(JOBS)

demo: deps ## start the server and ask about clips (CLIP=file QUESTION=text to choose)
	cmake --preset release -Wno-dev -DVIDEONSA_BENCHMARKS=OFF
	cmake --build build/release -j $(JOBS) --target videonsa-server videonsa videonsa-decoder
	@CLIP="$(CLIP)" QUESTION="$(QUESTION)" deploy/demo/demo.sh build/release

serve: build ## run the server in the foreground (LISTEN=, MODEL=)
	$(BUILD)/bin/videonsa-server --listen $(LISTEN) $(if $(MODEL),--model $(MODEL))

bench: build ## run the benchmarks of tests/bench and print their tables
	@tests/bench/run_all.sh $(BUILD)

identity: build ## 200 mixed requests, 32 at once, give token for token the answers of each alone
	@VIDEONSA_IDENTITY_REQUESTS=200 VIDEONSA_IDENTITY_STREAMS=32 \
	  $(BUILD)/tests/e2e_identity_test 2>&1 | grep -E "^(identity:|\[ )|Failure"

examples: ## run the Go and JavaScript examples against a server (installs Go and Node; part of `make test` where they are)
	@deploy/build/install_packages.sh test_packages.txt example_packages.txt
	@$(MAKE) --no-print-directory build PRESET=dev
	ctest --test-dir build/dev -R 'client_(go|javascript)_example' -V | grep -E "example|over|Passed|Failed|tests passed"

soak-clients: build ## 10,000 short questions, 200 uploads at once, 500 slow connections, 64 streams for MINUTES=n (default 60)
	@tests/e2e/soak/clients.py $(BUILD)/bin --minutes $(or $(MINUTES),60)

soak: build ## load with faults for MINUTES=n (default 2), report in tests/e2e/soak/report.txt; exit 1 if an answer is lost or wrong
	@VIDEONSA_SOAK_MINUTES=$(or $(MINUTES),2) VIDEONSA_SOAK_REPORT=tests/e2e/soak/report.txt \
	  $(BUILD)/tests/e2e_soak_test 2>&1 | grep -E "^(soak:|\[ )|Failure"

gpu: build ## check and time the CUDA worker on this machine's GPU
	@tests/cuda/run_gpu.sh $(BUILD)/bin

lint: ## check layers, sizes, headers and formatting
	@tests/lint/run_all.sh

accuracy: build ## ask the running model about new clips (SEED=n); exit 1 below the targets
	@tests/e2e/accuracy/run.sh $(BUILD) $(SEED)

train-test: ## train a tiny model on a CPU for a minute and check that it learnt (installs PyTorch into .venv)
	@$$(deploy/demo_model/venv.sh) -m deploy.demo_model.train_test

long-prompt: build ## run a prompt of 128K tokens within the memory that Estimate announces
	@tests/e2e/long_prompt/long_prompt.py $(BUILD)

container: ## build the CPU image (CUDA=ON: the one with a GPU worker) without a daemon, start it and ask it
	@CUDA=$(or $(CUDA),OFF) tests/container/run.sh

clean: ## remove all builds
	rm -rf build

deploy-check: ## check manifests, compose file, rules and dashboard against a build (also part of `make test`)
	ctest --test-dir build/dev -R '^deploy_' --output-on-failure

security: ## build and run the suites against hostile callers, clips and URLs; a line a suite with its number of cases
	@deploy/build/install_packages.sh test_packages.txt
	@$(MAKE) --no-print-directory build PRESET=dev
	@tests/deploy/security_suites.py build/dev/tests

fuzz: ## run the fuzz targets under libFuzzer, ASan and UBSan (TARGET=url_fuzzer SECONDS=3600; needs clang)
	@tests/fuzz/run.sh "$(TARGET)" "$(SECONDS)" $(JOBS)

dashboard: build ## load a server for SECONDS (at least 60) and draw the Grafana dashboard from what Prometheus saw
	@deploy/observability/load_run.sh $(BUILD) build/dashboard.png $(SECONDS)
