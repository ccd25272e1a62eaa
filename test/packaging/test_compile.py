"""`vidseg compile` leaves nothing for the first start to compile."""

import os
import shutil
import subprocess
import sys

import pytest

PARTS = ("vidseg_core", "vidseg_ros", "config", "weights", "package.xml")


@pytest.mark.long
def test_after_the_step_of_installing_a_user_with_empty_caches_compiles_nothing(checkout, tmp_path):
    installed, cache = tmp_path / "installed", tmp_path / "cache"
    installed.mkdir()
    for part in PARTS:
        if (checkout / part).is_dir():
            shutil.copytree(
                checkout / part, installed / part, ignore=shutil.ignore_patterns("__pycache__", "__compiled__")
            )
        else:
            shutil.copy(checkout / part, installed / part)
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(installed), "XDG_CACHE_HOME": str(cache), "NUMBA_DEBUG_CACHE": "1"}

    def run(*command):
        done = subprocess.run(
            [sys.executable, "-m", "vidseg_core.cli", *command],
            cwd=installed, env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "data saved" in run("compile", "--size", "640x360")
    kept = installed / "vidseg_core/__compiled__/openvino"
    assert list(kept.glob("*.blob")) and len(list(kept.glob("*.network"))) == 1 and not (cache / "vidseg").exists()
    for options in ((), ("--key-frames", "async")):
        out = tmp_path / f"out{len(options)}"
        printed = run("run", "street:seed=1,frames=12,size=640x360", "--out", str(out), *options)
        saved = [line for line in printed.splitlines() if "data saved" in line and "/kernels/" in line]
        assert saved == [] and not list(cache.rglob("*.blob")) and not list(cache.rglob("*.network"))
