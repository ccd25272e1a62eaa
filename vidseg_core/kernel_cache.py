"""A place for numba's compiled kernels, also where the package and the user's home cannot be written.

numba looks for that place when a decorated function is imported, and raises where it finds none: a package that root
installed and a service without a home, or a container with a read-only root, could not even be imported. Kernels that
were compiled with the installation lie beside the package; where numba looks elsewhere they are copied there.
"""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

from vidseg_core.errors import ConfigError

VARIABLE = "NUMBA_CACHE_DIR"
SHARED_MEMORY = "/dev/shm"
"""Can be written in most containers whose root cannot."""

_BESIDE = Path(__file__).parent / "__pycache__"
log = logging.getLogger(__name__)


def ensure_kernel_cache() -> None:
    """Set NUMBA_CACHE_DIR to a temporary directory if numba could write to none of the places where it looks.

    The directory is the user's own and is kept for the next start. Another user's directory is never taken: numba runs
    what it finds there.

    Raises:
        ImportError: no directory at all can be written.
    """
    if any(map(_can_write, _places_of_numba())):
        return
    for parent in (_temporary_directory(), SHARED_MEMORY):
        directory = None if parent is None else _private_directory(Path(parent))
        if directory is not None:
            os.environ[VARIABLE] = str(directory)
            log.warning(
                "neither the package nor the user's cache can be written: compiled kernels are kept in %s "
                "(%s names another place)", directory, VARIABLE,
            )  # fmt: skip
            return
    raise ImportError(f"no directory can be written for compiled kernels: set {VARIABLE} to one that can")


def use_the_installation() -> None:
    """Have this process keep compiled kernels beside the package, for all its users. To be called before numba loads.

    Raises:
        ConfigError: nothing can be written there.
    """
    os.environ.pop(VARIABLE, None)
    if not _can_write(_BESIDE):
        raise ConfigError(f"{_BESIDE}: cannot be written: run this as the user who installed the package")


def take_over_installed(kernel: Any) -> None:
    """Copy what was compiled with the installation to where numba looks for it, if that is elsewhere.

    Args:
        kernel: a kernel of ours, compiled by `numba.njit(cache=True)`; those of its folder are copied.
    """
    installed, wanted = Path(kernel.py_func.__code__.co_filename).parent / "__pycache__", Path(kernel.stats.cache_path)
    if installed == wanted:
        return
    for file in (*installed.glob("*.nbc"), *installed.glob("*.nbi")):  # an index names the code that lies there already
        if not (wanted / file.name).exists():
            try:
                wanted.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, wanted / f"{file.name}.part-{os.getpid()}")
                os.replace(wanted / f"{file.name}.part-{os.getpid()}", wanted / file.name)
            except OSError as error:  # compiled again, then
                log.warning("%s: compiled kernels cannot be copied here: %s", wanted, error.strerror)
                return


def _places_of_numba() -> list[Path]:
    given = os.environ.get(VARIABLE)
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return [*([Path(given)] if given else []), _BESIDE, Path(user) / "numba"]


def _can_write(directory: Path) -> bool:
    """Try it, as numba does: permissions do not tell of a read-only file system or a full one."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError:
        return False
    return True


def _temporary_directory() -> str | None:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return None


def _private_directory(parent: Path) -> Path | None:
    """Directory that nobody else can write; one for this process alone where its name is taken by somebody else."""
    directory = parent / f"vidseg-kernels-{os.geteuid()}"
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
        found = directory.lstat()
        is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if is_ours and _can_write(directory):
            return directory
    except OSError:  # the name is a file's, or nothing can be made here
        pass
    try:
        directory = Path(tempfile.mkdtemp(prefix="vidseg-kernels-", dir=parent))
    except OSError:
        return None
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory
