"""Whether PyPI has wheels of all that labelling needs, for ARM and for Python 3.14; nothing is installed."""

import runpy
import subprocess
import sys

import pytest
import setuptools

MANYLINUX = ("2014", "_2_17", "_2_26", "_2_27", "_2_28", "_2_31", "_2_34")
ARM = [part for one in MANYLINUX for part in ("--platform", f"manylinux{one}_aarch64")]
RESOLVE_S = 900


@pytest.mark.long
@pytest.mark.parametrize(
    "python, options", [("3.10", []), ("3.14", []), ("3.12", ARM)], ids=["oldest", "newest", "aarch64"]
)
def test_every_wheel_can_be_had(python, options, tmp_path, checkout, monkeypatch):
    declared = {}
    monkeypatch.chdir(checkout)
    monkeypatch.setattr(setuptools, "setup", lambda **given: declared.update(given))
    runpy.run_path("setup.py")
    wanted = [*declared["install_requires"], *declared["extras_require"]["label"]]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--only-binary=:all:"]
    command += ["--python-version", python, *options, "--target", str(tmp_path), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, timeout=RESOLVE_S, check=False)
    assert done.returncode == 0, done.stderr
