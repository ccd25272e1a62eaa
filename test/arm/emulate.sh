#!/bin/sh
# Emulate a computer with an ARM processor (aarch64): run the kernels' tests there, label a frame of the synthetic
# street, and compare the labels with this computer's.
#
#     test/arm/emulate.sh [DIR]
#
# DIR (default .venv-arm) keeps what was fetched: Debian's arm64 packages, unpacked but not configured, and aarch64 wheels.
# Every step is done once; the first run takes about 20 minutes, most of them in the emulator. Needs debootstrap and
# qemu-aarch64-static (apt install debootstrap qemu-user-static), and a Python that has vidseg for comparison.
#
#     PYTHON=.venv/bin/python   that Python
#     CPU=cortex-a76            what is emulated; `qemu-aarch64-static -cpu help` lists others
#     TORCH=torch==2.8.0        of PyPI's wheels for aarch64 the last that is built for the CPU alone
#     TESTS="test/core/kernels ..."
#     SOURCE=street:...         what is labelled, a small frame by default
#     STEPS="root wheels tests labels"   what to do
#
# No binfmt is needed, so that a process that the emulated one starts would not run: only tests that start none are chosen.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")/../.." && pwd)
case ${1:-} in
-*) sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 0 ;;
esac
folder=${1:-$here/.venv-arm}
PYTHON=${PYTHON:-$here/.venv/bin/python}
CPU=${CPU:-cortex-a76}
TORCH=${TORCH:-torch==2.8.0}
TESTS=${TESTS:-test/core/kernels test/core/engine/test_stream.py test/core/backends/test_integers.py}
STEPS=${STEPS:-root wheels tests labels}
SUITE=bookworm
VERSION=3.11 # Debian bookworm's Python
SOURCE=${SOURCE:-street:seed=1,frames=1,size=320x240}

tools=qemu-aarch64-static
case " $STEPS " in *" root "*) tools="$tools debootstrap dpkg-deb" ;; esac
for tool in $tools; do
	command -v "$tool" >/dev/null || {
		echo "$tool: not found (apt install debootstrap qemu-user-static dpkg)" >&2
		exit 2
	}
done
mkdir -p "$folder"
folder=$(CDPATH='' cd -- "$folder" && pwd)
root=$folder/root site=$folder/site

# The folder's root with Debian's packages. debootstrap fetches and checks them; nothing in there runs, so that no step
# needs binfmt or a chroot.
make_root() {
	debootstrap --download-only --arch=arm64 --variant=minbase \
		--include=python3,libgomp1,libgl1,libglib2.0-0 "$SUITE" "$root" http://deb.debian.org/debian
	for directory in bin sbin lib; do # Debian's merged /usr
		mkdir -p "$root/usr/$directory"
		ln -sfn "usr/$directory" "$root/$directory"
	done
	for package in "$root"/var/cache/apt/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$package" | tar -x --keep-directory-symlink -C "$root"
	done
}

# Wheels for aarch64, by the pip of this computer: PyTorch by itself, as it would want what it needs here.
fetch_wheels() {
	platforms=
	for one in 2014_aarch64 _2_17_aarch64 _2_26_aarch64 _2_27_aarch64 _2_28_aarch64 _2_31_aarch64 _2_34_aarch64 _2_35_aarch64; do
		platforms="$platforms --platform manylinux$one"
	done
	needed=$(cd "$here" && "$PYTHON" - <<'END'
import runpy

import setuptools

given = {}
setuptools.setup = lambda **options: given.update(options)
runpy.run_path("setup.py")
print(*(one for one in (*given["install_requires"], *given["extras_require"]["label"]) if not one.startswith("torch")))
END
	)
	fetch="$PYTHON -m pip install --quiet --only-binary=:all: --python-version $VERSION --target $site"
	# shellcheck disable=SC2086
	$fetch $platforms --upgrade $needed pytest filelock typing-extensions sympy networkx jinja2 fsspec
	# shellcheck disable=SC2086
	$fetch $platforms --upgrade --no-deps "$TORCH"
}

# Run the emulated Python.
emulated() {
	qemu-aarch64-static -cpu "$CPU" -L "$root" -E PYTHONPATH="$site:$here" -E NUMBA_CACHE_DIR="$folder/numba" \
		-E XDG_CACHE_HOME="$folder/cache" -E OMP_NUM_THREADS="$(nproc)" "$root/usr/bin/python$VERSION" "$@"
}

# Labels of key frames, from here and from there.
label() {
	out=$1
	shift
	"$@" -m vidseg_core.cli run "$SOURCE" --runtime openvino --interval 0 --no-fusion --input-scale 0.5 --no-video --overwrite --out "$out"
}

compare() {
	"$PYTHON" - "$folder/labels-here/labels" "$folder/labels-arm/labels" <<'END'
import sys
from pathlib import Path

import cv2

ours, theirs = map(Path, sys.argv[1:])
names = sorted(path.name for path in ours.glob("*.png"))
if not names or names != sorted(path.name for path in theirs.glob("*.png")):
    sys.exit(f"expected the same labels in {ours} and {theirs}")
shares = [float((cv2.imread(str(ours / name), -1) == cv2.imread(str(theirs / name), -1)).mean()) for name in names]
print(f"{len(names)} frames: labels agree on {100 * sum(shares) / len(shares):.3f} % of pixels, {100 * min(shares):.3f} % at least")
sys.exit(min(shares) < 0.99)
END
}

for step in $STEPS; do
	echo "== $step" >&2
	case $step in
	root)
		if [ ! -e "$folder/root-is-there" ]; then
			make_root
			touch "$folder/root-is-there"
		fi
		;;
	wheels)
		if [ ! -e "$folder/wheels-are-there" ]; then
			fetch_wheels
			touch "$folder/wheels-are-there"
		fi
		;;
	# shellcheck disable=SC2086
	tests)
		cd "$here"
		emulated -m pytest -q -p no:cacheprovider $TESTS
		;;
	labels)
		cd "$here"
		rm -rf "$folder/labels-here" "$folder/labels-arm" # of another SOURCE
		label "$folder/labels-here" "$PYTHON"
		label "$folder/labels-arm" emulated
		compare
		;;
	*) echo "STEPS: expected root, wheels, tests or labels, got $step" >&2; exit 2 ;;
	esac
done
