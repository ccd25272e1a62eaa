"""Compiled kernels need a place where they are kept, wherever the package is installed."""

import os
import shutil
import subprocess
import sys
import tempfile

import pytest

import vidseg_core
from vidseg_core import kernel_cache
from vidseg_core.errors import ConfigError


@pytest.fixture
def read_only(monkeypatch, tmp_path):
    """Neither the package nor the user's cache can be written; temporary files can, below `tmp_path`."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    can_write = kernel_cache._can_write
    monkeypatch.setattr(kernel_cache, "_can_write", lambda path: path.is_relative_to(tmp_path) and can_write(path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(kernel_cache, "SHARED_MEMORY", str(tmp_path / "absent"))
    yield tmp_path / f"vidseg-kernels-{os.geteuid()}"
    os.environ.pop("NUMBA_CACHE_DIR", None)


def test_nothing_is_chosen_where_numba_finds_a_place(monkeypatch):
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    kernel_cache.ensure_kernel_cache()
    assert "NUMBA_CACHE_DIR" not in os.environ


def test_a_place_that_the_user_chose_is_kept(read_only, monkeypatch, tmp_path):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "own"))
    kernel_cache.ensure_kernel_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == str(tmp_path / "own") and not read_only.exists()


@pytest.mark.parametrize("given", [None, "/proc/nothing"])
def test_a_read_only_installation_takes_a_private_temporary_directory(read_only, given, monkeypatch, caplog):
    if given is not None:
        monkeypatch.setenv("NUMBA_CACHE_DIR", given)
    kernel_cache.ensure_kernel_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == str(read_only)
    assert read_only.stat().st_mode & 0o777 == 0o700
    [record] = caplog.records
    assert f"compiled kernels are kept in {read_only} (NUMBA_CACHE_DIR names another place)" in record.getMessage()


def test_a_directory_that_others_can_write_is_not_taken(read_only):
    read_only.mkdir()
    read_only.chmod(0o777)
    kernel_cache.ensure_kernel_cache()
    chosen = os.environ["NUMBA_CACHE_DIR"]
    assert chosen != str(read_only) and chosen.startswith(str(read_only.parent / "vidseg-kernels-"))


def test_nor_a_link_or_a_file_of_that_name(read_only, tmp_path):
    for make in (lambda: read_only.symlink_to(tmp_path), lambda: read_only.touch()):
        os.environ.pop("NUMBA_CACHE_DIR", None)
        make()
        kernel_cache.ensure_kernel_cache()
        assert os.environ["NUMBA_CACHE_DIR"] != str(read_only)
        read_only.unlink()


def test_shared_memory_is_taken_where_there_are_no_temporary_files(read_only, monkeypatch, tmp_path):
    monkeypatch.setattr(kernel_cache, "_temporary_directory", lambda: None)
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr(kernel_cache, "SHARED_MEMORY", str(memory))
    kernel_cache.ensure_kernel_cache()
    assert os.environ["NUMBA_CACHE_DIR"] == str(memory / read_only.name)


def test_without_any_place_the_error_names_the_variable(read_only, monkeypatch):
    monkeypatch.setattr(kernel_cache, "_temporary_directory", lambda: None)
    with pytest.raises(ImportError, match="set NUMBA_CACHE_DIR to one that can"):
        kernel_cache.ensure_kernel_cache()


NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-c")


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_a_user_without_a_home_imports_kernels_of_a_package_that_root_installed(tmp_path):
    installed, scratch = tmp_path / "installed", tmp_path / "scratch"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(os.path.dirname(vidseg_core.__file__), installed / "vidseg_core", ignore=ignored)
    scratch.mkdir()
    scratch.chmod(0o777)
    for parent in (tmp_path, *list(tmp_path.parents)[:2]):
        parent.chmod(0o755)
    environment = {"HOME": "/nonexistent", "PATH": os.environ["PATH"], "PYTHONPATH": str(installed)}
    environment |= {"TMPDIR": str(scratch), "_ROS_WHEELS_BOOTSTRAP_COMPLETE": "1"}
    options = {"env": environment, "cwd": scratch, "capture_output": True, "text": True}
    if subprocess.run([*NOBODY, "pass"], **options).returncode != 0:
        pytest.skip("needs an interpreter that other users can run")
    # The overlay has a kernel.
    script = "import os, vidseg_core.overlay; print(os.environ['NUMBA_CACHE_DIR'])"
    done = subprocess.run([*NOBODY, script], **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(scratch / "vidseg-kernels-65534")


class Kernel:
    """The two facts about a kernel of numba's that matter: where its source is, and where it is cached."""

    def __init__(self, source, cache):
        self.py_func = lambda: None
        self.py_func.__code__ = self.py_func.__code__.replace(co_filename=str(source / "warp.py"))
        self.stats = type("Stats", (), {"cache_path": str(cache)})


def test_kernels_of_the_installation_are_copied_to_where_numba_looks(tmp_path):
    installed, own = tmp_path / "package" / "__pycache__", tmp_path / "cache" / "package_1"
    installed.mkdir(parents=True)
    for name in ("warp.nbi", "warp.1.nbc", "warp.pyc"):
        (installed / name).write_text(name)
    kernel_cache.take_over_installed(Kernel(tmp_path / "package", own))
    assert {file.name for file in own.iterdir()} == {"warp.nbi", "warp.1.nbc"}
    (own / "warp.nbi").write_text("newer")
    kernel_cache.take_over_installed(Kernel(tmp_path / "package", own))
    assert (own / "warp.nbi").read_text() == "newer" and (own / "warp.1.nbc").read_text() == "warp.1.nbc"


def test_nothing_is_copied_where_numba_looks_beside_the_package(tmp_path):
    (tmp_path / "__pycache__").mkdir()
    kernel_cache.take_over_installed(Kernel(tmp_path, tmp_path / "__pycache__"))
    assert not list((tmp_path / "__pycache__").iterdir())


def test_a_cache_that_cannot_be_written_is_told_and_no_error(tmp_path, caplog):
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "warp.nbi").touch()
    (tmp_path / "file").touch()
    kernel_cache.take_over_installed(Kernel(tmp_path, tmp_path / "file" / "cache"))
    assert "compiled kernels cannot be copied here: Not a directory" in caplog.text


def test_compiling_for_an_installation_that_cannot_be_written_is_refused(read_only, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/elsewhere")
    with pytest.raises(ConfigError, match="__pycache__: cannot be written: run this as the user who installed"):
        kernel_cache.use_the_installation()
    assert "NUMBA_CACHE_DIR" not in os.environ
