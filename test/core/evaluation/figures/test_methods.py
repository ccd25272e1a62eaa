import cv2
import numpy as np
import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.cli import figure
from vidseg_core.errors import ConfigError, DatasetError
from vidseg_core.models.files import save_weights
from vidseg_core.networks.guided_refine import GuidedRefine

CLASSES = load_classes("camvid")
CAPTION, GAP, SIZE = 26, 4, (96, 128)


@pytest.fixture
def data(tmp_path):
    """A car before a wall moves 8 pixels a frame."""
    for name in ("val", "valannot"):
        (tmp_path / name).mkdir()
    for i in range(4):
        labels = np.full(SIZE, 1, np.uint8)
        labels[32:64, 8 + 8 * i : 40 + 8 * i] = 8
        cv2.imwrite(str(tmp_path / "val" / f"f{i}.png"), np.repeat(labels[..., None] * 20, 3, axis=2))
        cv2.imwrite(str(tmp_path / "valannot" / f"f{i}.png"), labels)
    return tmp_path


@pytest.fixture
def refine_weights(tmp_path):
    """A refinement that hands on what was carried, and says that the past is worth three quarters of it."""
    torch.manual_seed(0)
    network = GuidedRefine(len(CLASSES))
    norm = network.guide.guide_decoder[1]
    torch.nn.init.zeros_(norm.weight)
    norm.bias.data = torch.tensor([3.0, *[0.0] * 9, 1.0])
    torch.nn.init.zeros_(network.intra_net[6].weight)
    torch.nn.init.zeros_(network.intra_net[6].bias)
    path = tmp_path / "refine.safetensors"
    tensors = {f"refine.{key}": value for key, value in network.state_dict().items()}
    save_weights(path, tensors, {"architecture": "guided-refine", "classes": CLASSES.to_dict()})
    return path


def draw(name, data, out, *options):
    import argparse

    parser = argparse.ArgumentParser()
    figure.add_arguments(parser)
    common = ["--data", f"camvid:{data}", "--width", SIZE[1], "--key-frames", "truth", "--grid-stride", 4]
    common += ["--out", out, "--flow", "none", "--device", "cpu", "--num-threads", 1, "--runtime", "eager", "--fusion"]
    figure.main(parser.parse_args([name, *map(str, (*common, *options))]))
    return cv2.imread(str(out))[..., ::-1]


def picture(figure, row, column):
    y, x = row * (SIZE[0] + CAPTION + GAP) + CAPTION, column * (SIZE[1] + GAP)
    return figure[y : y + SIZE[0], x : x + SIZE[1]]


def test_strip(data, refine_weights, tmp_path):
    options = ("--refine-weights", refine_weights, "--interval", 2)
    drawn = draw("strip", data, tmp_path / "strip.png", *options)
    assert drawn.shape == (SIZE[0] + CAPTION, 5 * SIZE[1] + 4 * GAP, 3)
    shown, edge, prediction, occlusion, truth = (picture(drawn, 0, k) for k in range(5))
    key, last = (cv2.imread(str(data / "valannot" / f"f{i}.png"), cv2.IMREAD_UNCHANGED) for i in (0, 2))
    assert np.array_equal(shown[..., 0], last * 20) and np.array_equal(truth, CLASSES.lut[last])
    assert (prediction == CLASSES.lut[key]).all(-1).mean() > 0.97, "copied from the key frame"
    assert set(np.unique(edge)) == {0, 255} and (edge[40:56, 20:32] == 0).all() and (edge[28:36, 20:32] == 255).any()
    assert (occlusion == 64).all()  # 1 of 4, of 255


def test_sequence(data, tmp_path):
    drawn = draw("sequence", data, tmp_path / "sequence.png", "--interval", 2, "--frame", "f3")
    assert drawn.shape == (3 * (SIZE[0] + CAPTION) + 2 * GAP, 3 * SIZE[1] + 2 * GAP, 3)
    labels = [cv2.imread(str(data / "valannot" / f"f{i}.png"), cv2.IMREAD_UNCHANGED) for i in (1, 2, 3)]
    for k, truth in enumerate(labels):
        assert np.array_equal(picture(drawn, 0, k)[..., 0], truth * 20)
        assert np.array_equal(picture(drawn, 1, k), CLASSES.lut[truth]), "every frame by itself"
        assert (picture(drawn, 2, k) == CLASSES.lut[labels[0]]).all(-1).mean() > 0.97, "copied from the key frame"


def test_what_cannot_be_drawn(data, refine_weights, tmp_path):
    out = tmp_path / "figure.png"
    with pytest.raises(ConfigError, match="expected refinement"):
        draw("strip", data, out, "--interval", 1)
    with pytest.raises(ConfigError, match="a key frame has none"):
        draw("strip", data, out, "--interval", 0, "--refine-weights", refine_weights)
    with pytest.raises(DatasetError, match="expected the name of a frame, for instance f3, got 'f9'"):
        draw("sequence", data, out, "--frame", "f9", "--interval", 1)
    with pytest.raises(DatasetError, match="a key frame and 2 frames after it inside the sequence of 4 frames"):
        draw("sequence", data, out, "--frame", "f1", "--interval", 2)
    with pytest.raises(ConfigError, match="--width: expected 64 or more, got 10"):
        draw("sequence", data, out, "--width", 10)
