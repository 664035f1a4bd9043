# SPDX-License-Identifier: Apache-2.0
# Needs Python >= 3.10 with venv, and a C++20 compiler. Everything else goes into .venv by itself.

PYTHON ?= python3
MARK ?= not slow
VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
# An index to take torch from, beside the usual one: https://download.pytorch.org/whl/cpu has it without CUDA.
TORCH_INDEX ?=
NVIDIA_DRIVER = $(wildcard /proc/driver/nvidia/version)
INSTALLED_TORCH = $(wildcard $(VENV)/lib/python*/site-packages/torch/version.py)
CXX_FILES = $(shell find csrc tests benchmarks -name '*.h' -o -name '*.cpp' -o -name '*.cuh' -o -name '*.cu')
SANITIZED := build/sanitize
EMULATED := build/emulate
# libstdc++ too: Python does not link it, and AddressSanitizer looks for it when the process starts.
PRELOAD = $(foreach name,libasan.so libstdc++.so,$(shell $(CXX) -print-file-name=$(name)))
# Export, the portable lowering and the reference are Python alone: nothing instrumented runs there.
COMPILED_ONLY := --ignore-glob='tests/ops/test_export*' --ignore=tests/ops/test_portable.py -k 'not [reference'
# Which row is taken, and with which instruction set of the CPU, is the product's business.
EMULATED_ONLY := $(COMPILED_ONLY) --ignore=tests/ops/test_backends.py
# Repeated and large calls meet the same accesses again.
RACES_ONLY := $(EMULATED_ONLY) -k 'not [reference and not test_run_to_run and not test_detector_at_640'
PYTEST_COPIED = $(CURDIR)/$(PY) -m pytest -c $(CURDIR)/pyproject.toml --rootdir . -p no:cacheprovider --capture=sys
# Threads and scratch memory are the compiled library's; the interpreter has one order. INTERPRET=... selects other tests.
INTERPRET ?= triton and not (threads or wider_call or run_to_run)
INTERPRETED_ONLY = --ignore-glob='tests/ops/test_export*' --ignore=tests/ops/test_portable.py -k '$(INTERPRET)'
# A library with settings of its own, and the package around it, in folder $(1); nothing is written beside setup.py.
BUILD_INTO = mkdir -p $(1) && $(PY) setup.py -q egg_info --egg-base $(1) build --build-lib $(1) --build-temp $(1)/objects
# Tests that run meanwhile write __pycache__.
COPY_TESTS = rm -rf $(1)/tests && tar -cf - --exclude=__pycache__ tests | tar -xf - -C $(1)
# Others' augmentation, in a folder of its own: torchvision from the index wants a torch with CUDA, of which it needs nothing.
TRANSFORMS := build/transforms
TRANSFORM_LIBRARIES := torchvision albumentations albucore opencv-python-headless simsimd stringzilla
TRANSFORM_LIBRARIES += pydantic pydantic-core annotated-types typing-inspection
TRANSFORM_TESTS := $(addprefix tests/rtdetr/data/test_,data_document.py transforms_torchvision.py)
# Fresh memory is 0xFF, NaN in every dtype; the emulator's threads have stacks of their own.
EMULATED_ASAN := detect_leaks=0:detect_stack_use_after_return=0:malloc_fill_byte=255:max_malloc_fill_size=1073741824

.PHONY: help build test lint format bench report demo sanitize emulate interpret transforms fuzz gpu-check clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install -q -c constraints.txt pip ninja pybind11 setuptools
	$(if $(TORCH_INDEX)$(NVIDIA_DRIVER)$(INSTALLED_TORCH),,@echo 'No NVIDIA driver here: torch without CUDA, gigabytes smaller, comes with "make TORCH_INDEX=https://download.pytorch.org/whl/cpu".')
	$(PY) -m pip install -q -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') torch
	$(PY) -m pip install -q -c constraints.txt --no-build-isolation -e '.[bench,demo,dev,test]' && touch $@

# Beside a torch without CUDA too, where nvcc is: the tests read the machine code of the kernels.
build $(READY): export TORCH_CUDA_ARCH_LIST ?= All

build: $(READY) ## compile the extension in place; incremental
	$(PY) setup.py build_ext --inplace --build-temp build/objects

test: build ## the fast tests; MARK=slow for the builds and installs, MARK= for all
	$(PY) -m pytest -m '$(MARK)' $(ARGS)

lint: $(READY) ## check style and types, change nothing
	$(PY) -m ruff check . && $(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/clang-format --dry-run -Werror $(CXX_FILES)

format: $(READY) ## apply the style
	$(PY) -m ruff check --fix . && $(PY) -m ruff format .
	$(VENV)/bin/clang-format -i $(CXX_FILES)

bench: build ## time every backend; ARGS="--help" tells more
	$(PY) benchmarks/run.py $(ARGS)

report: $(READY) ## tables and plots from benchmarks/results
	$(PY) benchmarks/report.py $(ARGS)

demo: build ## detect objects in a photo: detectors before and after patching, then the command
	$(PY) examples/demo.py $(ARGS)

sanitize: export CXX := $(CXX)
sanitize: $(READY) ## tests/ops under AddressSanitizer and UndefinedBehaviorSanitizer
	export RTDETR_OPS_SANITIZE=address,undefined && $(call BUILD_INTO,$(SANITIZED))
	$(call COPY_TESTS,$(SANITIZED))
	cd $(SANITIZED) && LD_PRELOAD='$(PRELOAD)' ASAN_OPTIONS=detect_leaks=0 $(PYTEST_COPIED) tests/ops $(COMPILED_ONLY) $(ARGS)

emulate: export CXX := $(CXX)
emulate: $(READY) ## tests/ops on the CUDA kernels, run on the CPU: bounds, fresh memory, races
	export RTDETR_OPS_EMULATE_CUDA=1 RTDETR_OPS_SANITIZE=address,undefined && $(call BUILD_INTO,$(EMULATED))
	export RTDETR_OPS_EMULATE_CUDA=races && $(call BUILD_INTO,$(EMULATED)-races)
	$(call COPY_TESTS,$(EMULATED))
	$(call COPY_TESTS,$(EMULATED)-races)
	cd $(EMULATED) && LD_PRELOAD='$(PRELOAD)' ASAN_OPTIONS=$(EMULATED_ASAN) $(PYTEST_COPIED) tests/ops $(EMULATED_ONLY) $(ARGS)
	cd $(EMULATED)-races && $(PYTEST_COPIED) tests/ops $(RACES_ONLY) $(ARGS)

interpret: build ## tests/ops on the Triton kernels, run on the CPU by Triton's interpreter
	TRITON_INTERPRET=1 $(PY) -m pytest tests/ops -m 'not slow' $(INTERPRETED_ONLY) $(ARGS)

$(TRANSFORMS)/.ready: $(READY) constraints.txt
	rm -rf $(TRANSFORMS)
	$(PY) -m pip install -q -c constraints.txt --no-deps --target $(TRANSFORMS) $(TRANSFORM_LIBRARIES) && touch $@

transforms: build $(TRANSFORMS)/.ready ## the recipe's transforms beside torchvision's, and the programs of docs/data.md
	PYTHONPATH=$(TRANSFORMS) $(PY) -m pytest $(TRANSFORM_TESTS) $(ARGS)

fuzz: build ## random calls and damaged files, 100,000 of them; ARGS="--help" tells more
	$(PY) tests/fuzz/run.py $(ARGS)

gpu-check: ## on a machine with a GPU: build, test, measure; ARGS="--help" tells more
	$(PYTHON) benchmarks/gpu_check.py $(ARGS)

clean: ## remove everything built, keep .venv
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis rtdetr_ops/*.so
