"""Fixtures for data that does not come with the repository.

Tests look for it in `../shared` beside the checkout: `data/`, `golden/` and `weights/`. The environment variable
`VIDSEG_TEST_DATA` names another place for `data/`; `golden/` and `weights/` are then looked for beside it.
"""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
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


@pytest.fixture(scope="session")
def moving_pictures() -> Callable[..., list[np.ndarray]]:
    """A function: `count` pictures of a mosaic that moves by half a block each, H x W x 3, uint8, RGB."""

    def pictures(count: int, size: tuple[int, int] = (96, 128)) -> list[np.ndarray]:
        blocks = np.random.default_rng(0).integers(0, 256, (size[0] // 8, size[1] // 8 + count, 3), np.uint8)
        mosaic = blocks.repeat(8, 0).repeat(8, 1)
        return [np.ascontiguousarray(mosaic[:, 4 * i : 4 * i + size[1]]) for i in range(count)]

    return pictures


@pytest.fixture(scope="session")
def encode_video() -> Callable[..., list[tuple[int, bytes]]]:
    """A function: pictures as H.264 or H.265 with a key frame every ten, without B-frames unless options say so.

    It returns (number of the picture, packet in Annex B) in the order of decoding. The codec is `h264` or `h265`, the
    options are those of x264 and x265.
    """
    av = pytest.importorskip("av", reason="needs PyAV (extra `cpu`)")

    def encode(pictures: list[np.ndarray], codec: str = "h264", **options) -> list[tuple[int, bytes]]:
        name = {"h264": "libx264", "h265": "libx265"}[codec]
        if name not in av.codecs_available:
            pytest.skip(f"needs FFmpeg with {name}")
        encoder = av.CodecContext.create(name, "w")
        encoder.height, encoder.width = pictures[0].shape[:2]
        encoder.pix_fmt, encoder.time_base, encoder.framerate = "yuv420p", Fraction(1, 30), Fraction(30)
        given = {"keyint": 10, "crf": 10, "bframes": 0, "scenecut": 0, "open_gop": 0} | options
        quiet = {"log-level": "none"} if codec == "h265" else {}
        values = ":".join(f"{key.replace('_', '-')}={value}" for key, value in (given | quiet).items())
        encoder.options = {f"{name.removeprefix('lib')}-params": values, "preset": "ultrafast"}
        packets = []
        for i, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = i
            packets += encoder.encode(frame)
        packets += encoder.encode(None)
        return [(packet.pts, bytes(packet)) for packet in packets]

    return encode
