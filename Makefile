# Everything happens in .venv; `make` alone says what there is.

CONSTRAINTS ?= constraints.txt
DURATION ?= 20
SOURCE ?=
WEIGHTS ?=
OUT ?= demo_output

SUPPORTED := 3.10 3.11 3.12 3.13 3.14
# The first interpreter of a supported version; `make PYTHON=... .venv` takes another.
PYTHON ?= $(firstword $(foreach name,python3 $(addprefix python,3.12 3.11 3.13 3.10 3.14),\
	$(if $(filter $(SUPPORTED),$(shell $(name) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)),$(name))))

# ROS is on PyPI for x86-64 only; elsewhere it comes from a distribution that has been sourced.
EXTRAS := $(if $(filter x86_64,$(shell uname -m)),ros$(shell echo ,))label,evaluate,onnx,train,dev
# Of Triton's versions, the oldest and the newest that the kernels for GPUs are for.
TRITONS := 3.6.0 3.9.0
# Libraries whose networks are tested; what they need besides is in .venv, or is not imported.
NETWORKS := torchvision==0.28.0 timm==1.0.31 segmentation-models-pytorch==0.6.0 ultralytics==8.4.190 \
	ultralytics-thop==2.2.3

.DEFAULT_GOAL := help
.PHONY: help .venv .venv-ros .venv-jazzy .venv-fleet demo test test-long test-all test-gpu gpu test-ros-constraints test-jazzy \
	test-fleet test-networks test-triton test-resolve soak lint clean

help:
	@echo 'make .venv   install everything into .venv (2 GB, about 7 with PyTorch for CUDA; Python $(firstword $(SUPPORTED)) to $(lastword $(SUPPORTED)))'
	@echo '               PYTHON=/path/to/python3   use this interpreter'
	@echo '               TORCH_INDEX_URL=URL       take PyTorch from this index: a build for the CPU, or another CUDA;'
	@echo '                                         on ARM without a GPU https://download.pytorch.org/whl/cpu'
	@echo 'make demo    play $(DURATION) s of video through ROS into the node, write what comes out to $(OUT)/'
	@echo '               SOURCE=...                a folder of images, a video, a bag (default: the synthetic street)'
	@echo '               DURATION=20               seconds; what is shorter is repeated'
	@echo '               WEIGHTS=...               another network, by its name or its file'
	@echo 'make test    run the tests but for those that take minutes'
	@echo 'make test-long   run those that take minutes: mutated recordings, ...'
	@echo 'make test-all   run them, and what takes longer: a distribution'"'"'s versions, long drives, overload'
	@echo 'make test-gpu   run those that need a GPU; without one they are skipped'
	@echo 'make gpu    check and time on a GPU all that runs there; writes docs/gpu/CARD.json'
	@echo 'make test-ros-constraints   run them with the versions that a ROS distribution has, in .venv-ros'
	@echo 'make test-jazzy   run the tests of the ROS side with ROS 2 Jazzy from PyPI, in .venv-jazzy'
	@echo 'make test-triton   compile the kernels for GPUs and run them in an interpreter, without a card: Triton $(TRITONS)'
	@echo 'make test-networks   run networks of Hugging Face, torchvision, smp and Ultralytics against their own pipelines'
	@echo 'make test-fleet   run the tests of fleets with Ray and a local S3 server from PyPI, in .venv-fleet'
	@echo 'make test-resolve   ask PyPI whether it has wheels for ARM (aarch64) and for Python 3.14'
	@echo 'make test-arm   run the kernels'"'"' tests on an emulated ARM processor and compare labels (Debian; 20 minutes)'
	@echo 'make soak    10,000 frames through the engine, 10 minutes of overload for the node: bounded latency, flat memory'
	@echo 'make lint    check style, formatting and types'
	@echo 'make clean   remove what builds and runs have written; the environments stay'

# The stamp is written last: an environment without it is not finished, and the next `make` goes on with it.
.venv: .venv/installed
.venv-ros: .venv-ros/installed
.venv-jazzy: .venv-jazzy/installed
.venv-fleet: .venv-fleet/installed

.venv-fleet/installed: EXTRAS = evaluate,fleet,dev
# A local S3 server and its client.
.venv-fleet/installed: MORE = 'moto[server]' boto3

.venv-ros/installed: CONSTRAINTS = constraints-ros.txt
.venv-ros/installed: constraints-ros.txt
.venv-jazzy/installed: CONSTRAINTS = .venv-jazzy.constraints
.venv-jazzy/installed: .venv-jazzy.constraints
.venv/installed .venv-fleet/installed: constraints.txt

.venv-jazzy.constraints: constraints.txt constraints-jazzy.txt
	@{ grep -v '^ros-' constraints.txt; cat constraints-jazzy.txt; } >$@

.venv/installed .venv-ros/installed .venv-jazzy/installed .venv-fleet/installed: setup.py setup.cfg pyproject.toml
	@test -n '$(PYTHON)' || { echo 'No Python $(firstword $(SUPPORTED)) to $(lastword $(SUPPORTED)) found.' \
	  'Install one (Debian, Ubuntu: apt install python3 python3-venv)' \
	  'or name one: make PYTHON=/path/to/python3 $(@D)' >&2; exit 1; }
	@command -v '$(PYTHON)' >/dev/null || { echo 'PYTHON: no such program: $(PYTHON)' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; v = "%d.%d" % sys.version_info[:2]; v in "$(SUPPORTED)".split() or sys.exit( \
	  "$(PYTHON) is Python " + v + ", expected one of $(SUPPORTED): name another, make PYTHON=/path/to/python3 $(@D)")'
	@'$(PYTHON)' -c 'import ensurepip, venv' 2>/dev/null || { echo '$(PYTHON) cannot make virtual environments.' \
	  'Install its venv module (Debian, Ubuntu: apt install python3-venv) and try again.' >&2; exit 1; }
	@rm -f $@
	@$(@D)/bin/python -m pip --version >/dev/null 2>&1 || '$(PYTHON)' -m venv --clear $(@D)
ifdef TORCH_INDEX_URL
	$(@D)/bin/python -m pip install --no-deps --index-url '$(TORCH_INDEX_URL)' -c $(CONSTRAINTS) torch
endif
	$(@D)/bin/python -m pip install $(if $(TORCH_INDEX_URL),--extra-index-url '$(TORCH_INDEX_URL)') \
	  -c $(CONSTRAINTS) -e '.[$(EXTRAS)]' $(MORE)
	$(@D)/bin/python -m vidseg_core.cli compile
	@touch $@

demo: .venv
	@.venv/bin/python -c 'import rclpy' 2>/dev/null || { echo 'No ROS: on x86-64 PyPI has it; elsewhere source a' \
	  'distribution whose Python is that of .venv (source /opt/ros/.../setup.bash) and try again.' >&2; exit 1; }
	.venv/bin/python -m vidseg_ros.demo $(if $(SOURCE),'$(SOURCE)') $(if $(WEIGHTS),--weights '$(WEIGHTS)') \
	  --duration $(DURATION) --out '$(OUT)'

test: .venv
	@.venv/bin/python -c 'import rclpy' 2>/dev/null || echo 'No ROS here: the tests of the ROS side are skipped.'
	.venv/bin/python -m pytest

test-long: .venv
	.venv/bin/python -m pytest -m long

test-all: test test-long test-ros-constraints test-jazzy test-triton test-fleet test-networks test-resolve soak

test-gpu: .venv
	.venv/bin/python -m pytest -m gpu

# Where PyTorch for CUDA is installed already: make gpu GPU_PYTHON=python3
GPU_PYTHON ?= .venv/bin/python
gpu: $(if $(filter .venv/%,$(GPU_PYTHON)),.venv)
	$(GPU_PYTHON) -m vidseg_core.evaluation.bench.gpu --out docs/gpu

test-ros-constraints: .venv-ros
	.venv-ros/bin/python -m pytest

test-jazzy: .venv-jazzy
	.venv-jazzy/bin/python -m pytest test/ros test/interface
	.venv-jazzy/bin/python -m pytest test/ros/demo -m long

test-triton: $(TRITONS:%=test-triton-%)

test-triton-%: .venv .venv-triton-%/installed
	PYTHONPATH=.venv-triton-$* .venv/bin/python -m pytest test/core/kernels/triton
	PYTHONPATH=.venv-triton-$* TRITON_INTERPRET=1 .venv/bin/python -m pytest test/core/kernels/test_conformance.py \
	  test/core/evaluation/bench/test_gpu.py -k 'cuda or rehears'

# make would take it for an intermediate file and delete it, and install again the next time.
.PRECIOUS: .venv-triton-%/installed
.venv-triton-%/installed: | .venv
	.venv/bin/python -m pip install --no-deps --target $(@D) triton==$*
	@touch $@

test-fleet: .venv-fleet
	.venv-fleet/bin/python -m pytest -m 'not gpu' test/core/fleet test/core/cli/test_fleet.py

test-networks: .venv-networks/installed
	.venv-networks/bin/python -m pytest -m long test/core/models/test_families.py

# An environment that has what .venv has, and the libraries. torchvision's own requirement, a PyTorch for CUDA, is left out.
.venv-networks/installed: constraints.txt | .venv
	.venv/bin/python -m venv --clear $(@D)
	.venv/bin/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
	  >"$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/venv.pth"
	$(@D)/bin/python -m pip install -c constraints.txt transformers onnxscript
	$(@D)/bin/python -m pip install --no-deps $(NETWORKS)
	@touch $@

# Whether every wheel that is needed can be had for ARM and for Python 3.14; nothing is installed.
test-resolve: .venv
	.venv/bin/python -m pytest test/packaging/test_resolve.py -m long

# Not among test-all: it wants Debian's debootstrap and qemu-user-static.
test-arm: .venv
	test/arm/emulate.sh

soak: .venv
	VIDSEG_SOAK_FRAMES=10000 .venv/bin/python -m pytest -m "long or not long" test/core/engine/test_memory.py
	VIDSEG_SOAK_S=600 .venv/bin/python -m pytest test/ros/test_node_faults.py -k overload

lint: .venv
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -m mypy

clean:
	rm -rf build install log logs $(OUT) .pytest_cache .ruff_cache *.egg-info
	find . -path './.venv*' -prune -o -name __pycache__ -type d -exec rm -rf {} +
