"""Fixtures for data that does not come with the repository.

Tests look for it in `../shared` beside the checkout: `data/`, `golden/` and `weights/`. The environment variable
`VIDSEG_TEST_DATA` names another place for `data/`; `golden/` and `weights/` are then looked for beside it.
"""

import os
from pathlib import Path

import pytest

# PyTorch's idle threads would spin for work; where something else wants the processors too, tests then take minutes
# instead of seconds. Subprocesses inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A subprocess that crashes says where.
os.environ.setdefault("PYTHONFAULTHANDLER", "1")

CHECKOUT = Path(__file__).resolve().parents[1]


def data_directory() -> Path:
    override = os.environ.get("VIDSEG_TEST_DATA")
    if not override:
        return CHECKOUT.parent / "shared" / "data"
    path = Path(override).expanduser().resolve()
    return path / "data" if (path / "data").is_dir() else path


def present(directory: Path) -> Path:
    if not directory.is_dir():
        pytest.skip(f"needs {directory} (VIDSEG_TEST_DATA names another place)")
    return directory


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU that PyTorch can use")


@pytest.fixture(scope="session", autouse=True)
def cache_home(tmp_path_factory):
    """Compiled networks are kept apart from the user's; subprocesses inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The root of the repository."""
    return CHECKOUT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The directory that holds `camvid/` and `cityscapes_sequence/`."""
    return present(data_directory())


@pytest.fixture(scope="session")
def golden() -> Path:
    """The directory of the golden vectors."""
    return present(data_directory().parent / "golden")


@pytest.fixture(scope="session")
def upstream_weights() -> Path:
    """The directory of the public checkpoints."""
    return present(data_directory().parent / "weights")
