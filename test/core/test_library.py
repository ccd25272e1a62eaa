"""The curated library: its names are there, and importing it stays cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vidseg_core


@pytest.mark.parametrize("name", vidseg_core.__all__)
def test_every_public_name_is_there_and_described(name):
    value = getattr(vidseg_core, name)
    assert name == "__version__" or value.__doc__
    assert name in dir(vidseg_core)


def test_type_checkers_are_told_the_same_names():
    stub = Path(vidseg_core.__file__).with_suffix(".pyi")
    assigned = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(stub.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign)
    }
    assert sorted(assigned["__all__"]) == sorted(vidseg_core.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="'vidseg_core' has no attribute 'segment'"):
        vidseg_core.segment  # noqa: B018


def test_importing_it_loads_nothing_heavy():
    code = "import sys, vidseg_core; print({'torch', 'numba', 'cv2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
