"""The order of the design: imports run downwards only, and nothing in the core needs ROS."""

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vidseg_core

TRITON = importlib.util.find_spec("triton")  # comes with PyTorch for CUDA alone
CORE = Path(vidseg_core.__file__).parent
ROS = CORE.parent / "vidseg_ros"
LEVELS = (
    {"cli"},
    {"labelling", "fleet"},
    {"training", "evaluation"},
    {"engine"},
    {"backends", "models"},
    {"kernels"},
    {"networks", "data", "overlay"},
    {"street"},
    {"frame", "classes", "errors", "options", "resources", "threads", "devices", "distributed", "kernel_cache"}
    | {"arrays", "allocator", "tether", "__init__"},
)
ROS_LEVELS = (
    {"programs"},
    {"node", "demo", "player", "benchmarks", "launching"},
    {"camera"},
    {"points"},
    {"engine", "outputs", "synchronizer", "worker"},
    {
        "ahead",
        "calibration",
        "diagnostics",
        "heartbeat",
        "interruption",
        "mailbox",
        "memory",
        "messages",
        "parameters",
        "pass_through",
        "processes",
        "rcl",
        "sizes",
        "stamps",
    }
    | {"subscription", "transport", "__init__"},
)


def ranks(levels: tuple[set[str], ...]) -> dict[str, int]:
    return {unit: len(levels) - i for i, units in enumerate(levels) for unit in units}


LEVEL, ROS_LEVEL = ranks(LEVELS), ranks(ROS_LEVELS)
SOURCES, ROS_SOURCES = sorted(CORE.rglob("*.py")), sorted(ROS.rglob("*.py"))
MODULES = {
    ".".join(path.relative_to(CORE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in SOURCES + ROS_SOURCES
}


def package_of(path: Path) -> tuple[Path, dict[str, int]]:
    return (CORE, LEVEL) if path.is_relative_to(CORE) else (ROS, ROS_LEVEL)


def unit_of(path: Path) -> str:
    """Name what the design orders: a package of the core or of the ROS side, or a module beside them."""
    return path.relative_to(package_of(path)[0]).parts[0].removesuffix(".py")


def imported(path: Path) -> set[str]:
    """Absolute names of all that a file imports: at its top, inside functions, and for annotations only."""
    package = path.relative_to(CORE.parent).parts[:-1]
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


def files_imported(path: Path) -> set[Path]:
    """Other files of ours that a file names in its imports."""
    found = set()
    for name in imported(path):
        while name and name not in MODULES:
            name = name.rpartition(".")[0]
        if name:
            found.add(MODULES[name])
    return found - {path}


def units_imported(path: Path) -> set[str]:
    """Units of the same package that a file imports."""
    package, level = package_of(path)
    units = {name.split(".")[1] for name in imported(path) if name.startswith(f"{package.name}.")}
    return {unit if unit in level else "__init__" for unit in units}


def circles(graph: dict) -> dict:
    """What is left of a graph once nothing that leads nowhere, or that nothing leads to, is in it: its circles."""
    left = {one: below & graph.keys() for one, below in graph.items()}
    while ends := {one for one, below in left.items() if not below} | left.keys() - set().union(*left.values()):
        left = {one: below - ends for one, below in left.items() if one not in ends}
    return left


def shown(path: Path) -> str:
    return str(path.relative_to(CORE.parent))


def test_every_unit_of_the_core_has_its_level():
    assert {unit_of(path) for path in SOURCES} <= set(LEVEL)


def test_every_unit_of_the_ros_side_has_its_level():
    assert {unit_of(path) for path in ROS_SOURCES} == set(ROS_LEVEL)


@pytest.mark.parametrize("path", SOURCES + ROS_SOURCES, ids=shown)
def test_imports_run_downwards(path):
    own, level = unit_of(path), package_of(path)[1]
    above = {unit for unit in units_imported(path) if level[unit] > level[own]}
    assert above == set(), f"{own} is below {above}"


@pytest.mark.parametrize("sources", [SOURCES, ROS_SOURCES], ids=["core", "ros"])
def test_units_of_one_level_do_not_import_each_other_in_turn(sources):
    graph = {unit_of(path): set() for path in sources}
    for path in sources:
        graph[unit_of(path)] |= units_imported(path) - {unit_of(path)}
    assert circles(graph) == {}


def test_files_do_not_import_each_other_in_turn():
    graph = {path: files_imported(path) for path in SOURCES + ROS_SOURCES}
    assert sum(map(len, graph.values())) > len(graph)  # imports are found at all
    found = {shown(path): sorted(map(shown, below)) for path, below in circles(graph).items()}
    assert found == {}


def test_circles_are_found():
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": set(), "e": {"a", "elsewhere"}}
    assert circles(graph) == {"b": {"c"}, "c": {"b"}}
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == {}


def test_the_engine_looks_at_the_type_of_device_only_where_it_is_chosen():
    looking = set()
    for path in (CORE / "engine").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            of_device = isinstance(node, ast.Attribute) and node.attr == "type" and "device" in ast.unparse(node.value)
            if of_device or (isinstance(node, ast.Attribute) and node.attr == "is_cuda"):
                looking.add(path.name)
    assert looking == {"build.py"}


@pytest.mark.parametrize("path", SOURCES, ids=shown)
def test_no_source_of_the_core_names_ros(path):
    tops = {name.split(".")[0] for name in imported(path)}
    assert not {top for top in tops if top in ("rclpy", "cv_bridge", "vidseg_ros") or top.endswith(("_msgs", "_srvs"))}


def test_every_module_of_the_core_can_be_imported_without_ros():
    sources = [path for path in SOURCES if TRITON or CORE / "kernels" / "triton" not in path.parents]
    modules = [".".join(("vidseg_core", *path.relative_to(CORE).with_suffix("").parts)) for path in sources]
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
