"""The ways to install: `colcon build` in a ROS workspace, pip (plain and editable) elsewhere, and none at all.

Each must bring the commands to where they are looked for, and find the files that come with the package.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

import vidseg_core

PARTS = (
    "package.xml", "setup.py", "setup.cfg", "pyproject.toml",
    "resource", "config", "launch", "weights", "vidseg_core", "vidseg_ros",
)  # fmt: skip

# Without --ignore-installed pip would uninstall the package from the environment that runs the tests.
PIP_INSTALL = (
    sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
    "--ignore-installed",
)  # fmt: skip

LOOK = """
import json
import vidseg_core
from vidseg_core.resources import share_directory
print(json.dumps({"package": vidseg_core.__file__, "share": str(share_directory())}))
"""

needs_colcon = pytest.mark.skipif(find_spec("colcon_core") is None, reason="needs colcon (extra `dev`)")


@pytest.fixture
def source_tree(checkout, tmp_path) -> Path:
    """A copy of what makes up the package; building in it leaves the checkout alone."""
    tree = tmp_path / "src" / "vidseg"
    tree.mkdir(parents=True)
    for part in PARTS:
        if (checkout / part).is_dir():
            shutil.copytree(checkout / part, tree / part, ignore=shutil.ignore_patterns("__pycache__", "*.part"))
        elif (checkout / part).is_file():
            shutil.copy(checkout / part, tree / part)
    return tree


def environment(**changes: str) -> dict[str, str]:
    """This process's environment without paths to other installations, its interpreter first in PATH."""
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "AMENT_PREFIX_PATH")}
    kept["VIDSEG_COMPILE"] = "0"  # takes half a minute, and is another test's
    return kept | {"PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))} | changes


def run(*command, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Standard output of a command that must succeed."""
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment() if env is None else env,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def look(cwd: Path, *prefix, env: dict[str, str] | None = None) -> dict[str, Path]:
    """Where an interpreter, started through the command `prefix`, finds the package and its shared files."""
    found = json.loads(run(*prefix, sys.executable, "-c", LOOK, cwd=cwd, env=env))
    return {key: Path(value) for key, value in found.items()}


def files_below(directory: Path) -> set[str]:
    files = (path for path in directory.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(directory)) for path in files}


def site_packages(prefix: Path) -> Path:
    return prefix / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def build(tree, *options):
    workspace = tree.parents[1]
    run(sys.executable, "-m", "colcon", "build", "--base-paths", "src", *options, cwd=workspace)
    return workspace


def sourced(workspace):
    """Runs what follows it as a user does who has sourced the workspace."""
    return "bash", "-c", f'. "{workspace}/install/setup.bash" && exec "$@"', "bash"


@needs_colcon
def test_colcon_build_installs_executables_and_files(source_tree, checkout):
    workspace = build(source_tree)
    prefix = workspace / "install/vidseg_ros"
    executable = prefix / "lib/vidseg_ros/vidseg"
    assert "usage: vidseg" in run(*sourced(workspace), executable, "--help", cwd=workspace)
    assert "NAME" in run(*sourced(workspace), executable, "weights", cwd=workspace)

    (installed,) = metadata.distributions(name="vidseg_ros", path=[str(site_packages(prefix))])
    scripts = {entry.name for entry in installed.entry_points.select(group="console_scripts")}
    assert scripts == {path.name for path in (prefix / "lib/vidseg_ros").iterdir()}
    for entry in installed.entry_points:
        assert find_spec(entry.module) is not None, entry

    found = look(workspace, *sourced(workspace))
    assert found["package"].is_relative_to(prefix) and found["share"] == prefix / "share/vidseg_ros"
    assert files_below(found["share"] / "config") == files_below(checkout / "config")
    assert files_below(found["share"] / "launch") == files_below(checkout / "launch")
    assert (found["share"] / "weights/registry.yaml").is_file()
    assert {path.name for path in (found["share"] / "weights").glob("*.safetensors")} == {
        path.name for path in (checkout / "weights").glob("*.safetensors")
    }
    assert (prefix / "share/ament_index/resource_index/packages/vidseg_ros").is_file()


@needs_colcon
def test_ament_finds_the_package_where_it_finds_itself(source_tree):
    pytest.importorskip("ament_index_python", reason="needs ROS (extra `ros`)")
    workspace = build(source_tree)
    ask = "from ament_index_python import get_package_share_directory as share; print(share('vidseg_ros'))"
    found = run(*sourced(workspace), sys.executable, "-c", ask, cwd=workspace).strip()
    assert found == str(look(workspace, *sourced(workspace))["share"])


@needs_colcon
def test_a_symlinked_install_uses_the_sources(source_tree):
    workspace = build(source_tree, "--symlink-install")
    found = look(workspace, *sourced(workspace))
    assert found["share"] == source_tree
    executable = workspace / "install/vidseg_ros/lib/vidseg_ros/vidseg"
    assert "usage: vidseg" in run(*sourced(workspace), executable, "--help", cwd=workspace)


def test_pip_install_brings_the_command_and_the_files(source_tree, checkout, tmp_path):
    prefix = tmp_path / "prefix"
    run(*PIP_INSTALL, "--prefix", prefix, source_tree, cwd=tmp_path)
    env = environment(PYTHONPATH=str(site_packages(prefix)))
    assert run(prefix / "bin/vidseg", "--version", cwd=tmp_path, env=env) == f"vidseg {vidseg_core.__version__}\n"
    assert "NAME" in run(prefix / "bin/vidseg", "weights", cwd=tmp_path, env=env)

    found = look(tmp_path, env=env)
    assert found["package"].is_relative_to(prefix) and found["share"] == prefix / "share/vidseg_ros"
    assert files_below(found["share"] / "config") == files_below(checkout / "config")
    assert (found["share"] / "weights/registry.yaml").is_file()


@pytest.fixture(autouse=True)
def the_environment_of_the_tests_stays():
    """Whoever runs the tests still has the commands afterwards."""

    def installed():
        return sorted(str(one.locate_file("")) for one in metadata.distributions(name="vidseg_ros"))

    before = installed()
    yield
    assert installed() == before


def test_an_editable_install_puts_the_command_where_pip_puts_commands(source_tree, tmp_path):
    prefix = tmp_path / "prefix"
    run(*PIP_INSTALL, "--prefix", prefix, "--editable", source_tree, cwd=tmp_path)
    assert (prefix / "bin/vidseg").is_file()
    assert not (prefix / "lib/vidseg_ros").exists()


def test_a_checkout_uses_its_own_files(source_tree, tmp_path):
    found = look(tmp_path, env=environment(PYTHONPATH=str(source_tree)))
    assert found == {"package": source_tree / "vidseg_core/__init__.py", "share": source_tree}


def test_without_its_files_the_package_says_so(source_tree, tmp_path):
    (source_tree / "vidseg_core").rename(tmp_path / "vidseg_core")
    ask = """
from vidseg_core.resources import resource
try:
    resource("config")
except FileNotFoundError as error:
    print(error)
"""
    said = run(sys.executable, "-c", ask, cwd=tmp_path, env=environment(PYTHONPATH=str(tmp_path)))
    assert "reinstall the package" in said and str(tmp_path / "vidseg_core") in said


def test_the_version_is_the_same_everywhere(checkout):
    setup = re.search(r'version="([^"]+)"', (checkout / "setup.py").read_text())[1]
    package = ElementTree.parse(checkout / "package.xml").findtext("version")
    assert setup == package == vidseg_core.__version__


def test_requirements(source_tree, checkout, tmp_path):
    run(*PIP_INSTALL, "--prefix", tmp_path / "prefix", source_tree, cwd=tmp_path)
    (installed,) = metadata.distributions(name="vidseg_ros", path=[str(site_packages(tmp_path / "prefix"))])
    # An executable of a workspace refuses to start without these, and apt's OpenCV, for one, goes by another name.
    assert {text for text in installed.requires if "extra ==" not in text} == {"numpy", "PyYAML"}

    needed = {re.match(r"[\w.-]+", text)[0].lower() for text in installed.requires}
    for name in ("constraints.txt", "constraints-ros.txt"):
        lines = [line for line in (checkout / name).read_text().splitlines() if line and not line.startswith("#")]
        assert {re.match(r"[\w.-]+", line)[0].lower() for line in lines} == needed, name
