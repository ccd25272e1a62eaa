"""The order of the design: imports run downwards only, and nothing in the core needs ROS."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vidseg_core

CORE = Path(vidseg_core.__file__).parent
LEVELS = (
    {"cli"},
    {"labelling"},
    {"training", "evaluation"},
    {"engine"},
    {"backends", "models"},
    {"kernels"},
    {"networks", "data", "overlay"},
    {"street"},
    {"frame", "classes", "errors", "resources", "threads", "distributed", "kernel_cache", "__init__"},
)
LEVEL = {unit: len(LEVELS) - i for i, units in enumerate(LEVELS) for unit in units}
SOURCES = sorted(CORE.rglob("*.py"))


def unit_of(path: Path) -> str:
    """What the design orders: a package of the core, or a module beside them."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Absolute names of all modules that a file imports, at its top or inside functions."""
    package = ("vidseg_core", *path.relative_to(CORE).parts[:-1])
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            # `from vidseg_core import frame` imports vidseg_core.frame.
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def units_imported(path: Path) -> set[str]:
    units = {name.split(".")[1] for name in imported(path) if name.startswith("vidseg_core.")}
    return {unit if unit in LEVEL else "__init__" for unit in units}


def test_every_unit_of_the_core_has_its_level():
    assert {unit_of(path) for path in SOURCES} <= set(LEVEL)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CORE)))
def test_imports_run_downwards(path):
    own = unit_of(path)
    above = {unit for unit in units_imported(path) if LEVEL[unit] > LEVEL[own]}
    assert above == set(), f"{own} is below {above}"


def test_units_of_one_level_do_not_import_each_other_in_turn():
    graph = {unit: set() for unit in LEVEL}
    for path in SOURCES:
        graph[unit_of(path)] |= units_imported(path) - {unit_of(path)}
    while leaves := [unit for unit, below in graph.items() if not below]:
        for leaf in leaves:
            del graph[leaf]
        for below in graph.values():
            below.difference_update(leaves)
    assert graph == {}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(CORE)))
def test_no_source_of_the_core_names_ros(path):
    tops = {name.split(".")[0] for name in imported(path)}
    assert not {top for top in tops if top in ("rclpy", "cv_bridge", "vidseg_ros") or top.endswith(("_msgs", "_srvs"))}


def test_every_module_of_the_core_can_be_imported_without_ros():
    modules = [".".join(("vidseg_core", *path.relative_to(CORE).with_suffix("").parts)) for path in SOURCES]
    script = """
import importlib, sys

class NoROS:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in ("rclpy", "cv_bridge", "vidseg_ros") or top.endswith(("_msgs", "_srvs")):
            raise ImportError(f"the core imported {name}")

sys.meta_path.insert(0, NoROS())
for name in sys.argv[1:]:
    importlib.import_module(name.removesuffix(".__init__"))
"""
    finished = subprocess.run([sys.executable, "-c", script, *modules], capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr


@pytest.mark.parametrize(("given", "expected"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_idle_threads_do_not_spin_unless_the_user_wants_them_to(given, expected):
    """Of PyTorch, which reads it when it is loaded: the command line must not load it before."""
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    environment |= {"OMP_WAIT_POLICY": given} if given else {}
    code = "import sys, os, vidseg_core.cli.main; print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]
