"""Each extra brings what its purpose needs: the commands run where nothing is there that other extras bring."""

import os
import re
import runpy
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import pytest
import setuptools
from packaging.requirements import Requirement

pytestmark = pytest.mark.long

BLOCKED = """
import sys
sys.modules.update(dict.fromkeys({modules!r}))
from vidseg_core.cli.main import main
sys.exit(main({arguments!r}))
"""
STREET = "street:seed=0,size=320x240,frames=4"
FAST = ("--device", "cpu", "--runtime", "eager", "--input-scale", "0.25", "--interval", "1")
PURPOSES = {
    "label": [
        ("run", STREET, "--out", "labelled", *FAST),
        ("bag", "make", STREET, "--out", "bag", "--storage", "mcap"),
        ("replay", "bag", "--no-live", "--json", "replay.json", *FAST),
    ],
    "evaluate": [
        ("evaluate", "--data", STREET, "--no-fps", "--out", "scores", *FAST),
        ("bag", "make", STREET, "--out", "bag"),
        ("replay", "bag", "--out", "report", *FAST),
    ],
    "train": [
        ("train", "segmenter", "--data", "street:frames=2,scenes=1,size=320x240", "--cache", ".", "--epochs", "1")
        + ("--hold-back", "0", "--batch", "2", "--crop", "64", "64", "--device", "cpu", "--out", "run")
        + ("--ladder", "street:frames=3,size=320x240"),
    ],
}


@pytest.fixture(scope="module")
def declared(checkout):
    """The arguments with which `setup.py` calls setuptools; requirements as names of distributions."""
    given = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **arguments: given.update(arguments))
        patch.chdir(checkout)
        runpy.run_path(str(checkout / "setup.py"))
    return given


def names(requirements) -> set[str]:
    return {re.split(r"[^\w.-]", one)[0].lower() for one in requirements}


def with_dependencies(distributions: set[str]) -> set[str]:
    """Return these distributions and what they bring with them, as far as it is installed here."""
    found, open_ones = set(), set(distributions)
    while open_ones:
        found.add(one := open_ones.pop())
        try:
            brought = [Requirement(line) for line in requires(one) or ()]
        except PackageNotFoundError:
            continue
        needed = {need.name.lower() for need in brought if need.marker is None or need.marker.evaluate({"extra": ""})}
        open_ones |= needed - found
    return found


def test_nothing_but_what_every_ros_distribution_has_is_required(declared):
    assert names(declared["install_requires"]) == {"numpy", "pyyaml"}


def test_the_extras_of_the_first_version_are_still_there(declared):
    assert {"cpu", "ros", "train", "dev", "test"} <= set(declared["extras_require"])
    assert names(declared["extras_require"]["label"]) <= names(declared["extras_require"]["cpu"])


@pytest.mark.parametrize("purpose", PURPOSES)
def test_an_extra_is_enough_for_its_purpose(purpose, declared, tmp_path):
    extras = {name: names(requirements) for name, requirements in declared["extras_require"].items()}
    others = set().union(*extras.values()) - with_dependencies(extras[purpose] | names(declared["install_requires"]))
    provided = packages_distributions().items()
    modules = [module for module, by in provided if by and {one.lower() for one in by} <= others]
    assert "sklearn" in modules and ("matplotlib" in modules) == (purpose == "label")
    for arguments in PURPOSES[purpose]:
        script = BLOCKED.format(modules=modules, arguments=list(arguments))
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=os.environ
        )
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
