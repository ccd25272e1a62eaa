import cv2
import numpy as np
import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.data.camvid import camvid
from vidseg_core.data.cityscapes import cityscapes
from vidseg_core.data.labelled import folder_pair
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.flow import DIS, NetworkFlow, NoFlow
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.engine.stream import Networks, Stream
from vidseg_core.errors import DatasetError
from vidseg_core.evaluation.evaluate import accumulated, by_distance, check_same_classes, clips
from vidseg_core.networks.checkpoint import load_swnet_seq
from vidseg_core.threads import set_num_threads

CPU = torch.device("cpu")


def make_video(folder, count, size=(64, 96)):
    """A bar that moves 8 pixels a frame; class 1 is the bar."""
    for name in ("clip", "clipannot"):
        (folder / name).mkdir()
    for i in range(count):
        labels = np.zeros(size, np.uint8)
        labels[:, 8 * i : 8 * i + 16] = 1
        cv2.imwrite(str(folder / "clip" / f"f{i:03d}.png"), np.repeat(labels[..., None] * 200, 3, axis=2))
        cv2.imwrite(str(folder / "clipannot" / f"f{i:03d}.png"), labels)
    return folder_pair(folder, "clip", load_classes("camvid"), video=True)


def truth_stream(classes, distance, flow=None, **config):
    networks = Networks(TruthSegmenter(len(classes)), flow or NoFlow(), None, CPU)
    return Stream(EngineConfig(interval=distance, **config), networks)


def test_every_distance_is_scored_on_the_same_frames(tmp_path):
    dataset = make_video(tmp_path, 6)
    found = clips(dataset, 2)
    scored = {k: sorted(index for clip in found for d, index in clip.scored if d == k) for k in range(3)}
    assert scored == {0: [2, 3, 4, 5], 1: [2, 3, 4, 5], 2: [2, 3, 4, 5]}
    for clip in found:
        for k, index in clip.scored:
            assert clip.images[k] == dataset.samples[index].image
            first = int(clip.images[0].stem[1:])
            assert [int(path.stem[1:]) for path in clip.images] == list(range(first, first + len(clip.images)))


def test_copying_loses_what_moved_and_nothing_else(tmp_path):
    dataset = make_video(tmp_path, 6)
    matrices = by_distance(dataset, truth_stream(dataset.classes, 2, grid_stride=4), 2)
    assert matrices[0].mean_iou() == 1.0
    # The bar is 16 wide and moves 8: half of it is right after one frame, none after two.
    assert matrices[1].iou()[1] == pytest.approx(8 / 24, abs=0.06)
    assert matrices[2].iou()[1] == pytest.approx(0.0, abs=0.06)
    assert accumulated(matrices).num_pixels == sum(matrix.num_pixels for matrix in matrices)


def test_frames_can_be_resized_first(tmp_path):
    dataset = make_video(tmp_path, 3)
    matrices = by_distance(dataset, truth_stream(dataset.classes, 1), 1, size=(128, 192))
    assert matrices[0].num_pixels == 2 * 128 * 192


def test_too_few_frames(tmp_path):
    dataset = make_video(tmp_path, 3)
    with pytest.raises(DatasetError, match="expected labelled frames with 5 frames before them.*one has is 2"):
        clips(dataset, 5)


def test_class_tables_must_agree(tmp_path):
    dataset = make_video(tmp_path, 2)
    check_same_classes(load_classes("camvid"), dataset)
    with pytest.raises(DatasetError, match=r"expected the network's classes \(road, .*the data set has sky, "):
        check_same_classes(load_classes("cityscapes"), dataset)


@pytest.mark.parametrize(
    ("flow", "expected"),
    [("none", [73.4, 63.5, 57.5, 53.7]), ("light", [83.8, 79.9, 77.4, 74.7]), ("dis", [85.3, 81.4, 79.4, 77.4])],
)
def test_truth_carried_along_the_real_clip(shared_data, upstream_weights, flow, expected):
    """mIoU after 1 to 4 frames at 1024 x 768 on the 1/8 grid, against an independent measurement."""
    set_num_threads(2)
    estimator = {
        "none": NoFlow,
        "dis": lambda: DIS("ultrafast", 0.5),
        "light": lambda: NetworkFlow(load_swnet_seq(upstream_weights / "cityscapes-swnet_model_best.pth.tar")[0]),
    }[flow]()
    dataset = camvid(shared_data / "camvid", "val")
    stream = truth_stream(dataset.classes, 4, estimator, grid_stride=8)
    matrices = by_distance(dataset, stream, 4, size=(768, 1024))
    assert matrices[0].mean_iou() == 1.0
    assert [100 * matrix.mean_iou() for matrix in matrices[1:]] == pytest.approx(expected, abs=1.5)


def test_cityscapes_snippets_with_one_labelled_frame(shared_data):
    """Frames before the labelled one have no truth, so they can be propagated from by a network only."""
    dataset = cityscapes(shared_data / "cityscapes_sequence", "val")
    found = clips(dataset, 2)
    assert len(found) == 6 and sum(len(clip.scored) for clip in found) == 6
    with pytest.raises(ValueError, match="expected ground truth labels, it has none"):
        by_distance(dataset, truth_stream(dataset.classes, 2), 2)
