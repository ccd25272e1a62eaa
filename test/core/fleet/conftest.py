import numpy as np
import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.data.bag_writer import BagWriter
from vidseg_core.models.files import save_weights
from vidseg_core.networks.swiftnet import SwiftNet

CLASSES = load_classes("camvid")
START_NS = 1_700_000_000 * 10**9
PERIOD_NS = 50_000_000
SIZE = (64, 96)


@pytest.fixture(scope="session")
def untrained(tmp_path_factory):
    """A small file of weights that know nothing."""
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    torch.manual_seed(0)
    save_weights(path, SwiftNet(11).state_dict(), {"architecture": "swiftnet-r18", "classes": CLASSES.to_dict()})
    return str(path)


def pictures(count, seed):
    """A mosaic that moves by two pixels each frame, and labels that move with it."""
    random = np.random.default_rng(seed)
    height, width = SIZE
    blocks = random.integers(0, 256, (height // 8, width // 8 + count, 3), dtype=np.uint8)
    wide = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    ids = np.kron(blocks[..., 0] % 11, np.ones((8, 8), np.uint8)).astype(np.uint8)
    for i in range(count):
        yield wide[:, 2 * i : 2 * i + width], np.ascontiguousarray(ids[:, 2 * i : 2 * i + width])


@pytest.fixture(scope="session")
def record():
    """A function that writes a recording."""

    def write(path, count, seed=0, storage="mcap", truth=True, pause_before=None):
        """Write `count` frames; the camera pauses for two seconds before one of them."""
        with BagWriter(path, storage) as bag:
            for i, (image, labels) in enumerate(pictures(count, seed)):
                paused_ns = 2 * 10**9 if pause_before is not None and i >= pause_before else 0
                stamp_ns = START_NS + i * PERIOD_NS + paused_ns
                bag.write_image("/camera/image_raw", "rgb8", image, stamp_ns, frame_id="front")
                if truth:
                    bag.write_image("/camera/labels_truth", "mono8", labels, stamp_ns)
        return path

    return write
