"""Recordings in segments give what a sequential run gives; nothing here needs Ray."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from vidseg_core.data.bag import BagSource, bag_labels
from vidseg_core.data.bag_writer import BagWriter
from vidseg_core.data.open import open_source
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.evaluation.replay.modes import in_mode
from vidseg_core.evaluation.replay.replay import Footage, offline
from vidseg_core.fleet import worker
from vidseg_core.fleet.collect import collect, stored_of
from vidseg_core.fleet.files import Files
from vidseg_core.fleet.inputs import find
from vidseg_core.fleet.labels import FORMS, unpacked
from vidseg_core.fleet.plan import Choices, settled
from vidseg_core.fleet.pool import InTurn
from vidseg_core.fleet.report import html_report
from vidseg_core.fleet.run import run
from vidseg_core.fleet.task import SEEN, Task
from vidseg_core.fleet.worker import Worker

COUNT = 23


@pytest.fixture(scope="module")
def config(untrained):
    return EngineConfig(weights=untrained, interval=2, input_scale=0.5, runtime="eager", device="cpu", num_threads=1)


@pytest.fixture(scope="module")
def engine(config):
    return build_engine(config)


@pytest.fixture(autouse=True)
def one_engine(monkeypatch, engine):
    """Let workers vary one engine instead of loading the networks for each of them."""

    def varied(config):
        return engine.variant(config) if config.runtime == "eager" else build_engine(config)

    monkeypatch.setattr(worker, "build_engine", varied)


@pytest.fixture(scope="module")
def drives(record, tmp_path_factory):
    """Two sound recordings, one with a pause, one of them without truth; and one that is none."""
    folder = tmp_path_factory.mktemp("drives")
    record(folder / "a", COUNT, seed=1, storage="sqlite3", pause_before=10)
    record(folder / "b", COUNT, seed=2, truth=False)
    (folder / "broken.mcap").write_bytes(b"no recording")
    return folder


def task(config, out, folder=None, **choices):
    kind = choices.pop("kind", "replay")
    choices = Choices(kind, config, **{"segment_frames": 6} | choices)
    files = Files.of(config)
    made = Task.of(choices, files, out, folder)
    made.prepare()
    return made, Worker(made, files, 1)


def do(config, out, *names, folder=None, wrap=None, **choices):
    made, own = task(config, out, folder, **choices)
    return made, run(made, find(map(str, names)), InTurn(own if wrap is None else wrap(own)))


def rows(made, outcome):
    drives = [drive for course in outcome.queue.courses.values() for drive in course.drives]
    return [collect(drive, made.segments(drive), made.store) for drive in drives]


def sequential(engine, path, truth=True):
    labels = bag_labels(path, "/camera/labels_truth", engine.classes) if truth else None
    seen = []
    footage = Footage(BagSource(path, topic="/camera/image_raw", labels=labels))
    every = offline(engine, footage, observe=lambda frame, result: seen.append((frame, result)))
    return every.summary(), seen


@pytest.mark.parametrize("segment_frames", [3, 1000])
def test_segments_have_the_figures_of_a_sequential_run_where_no_state_crosses(
    config, engine, drives, tmp_path, segment_frames
):
    config = replace(config, fusion=False)
    made, outcome = do(config, tmp_path, drives / "a", segment_frames=segment_frames)
    (row,) = rows(made, outcome)
    expected, seen = sequential(engine.variant(config), drives / "a")
    for name in ("frames", "labelled_frames", "miou", "pixel_accuracy", "class_iou", "absent_classes", "key_frames",
                 "reasons", "temporal_consistency", "rate_hz"):  # fmt: skip
        found, wanted = row.figures[name], expected[name]
        if name == "reasons":  # a segment begins at the pause, instead of finding it
            assert found == wanted | {"first frame": 2}
        else:
            assert found == wanted, name
    assert [one["first"] for one in row.segments] == sorted(one["first"] for one in row.segments)
    assert 10 in [one["first"] for one in row.segments] and row.errors == []
    columns = [arrays for _, _, arrays in stored_of(made.segments(row.drive), made.store, [])]
    right = np.concatenate([arrays["right_pixels"] for arrays in columns])
    assert right.tolist() == [int((result.labels == frame.labels).sum()) for frame, result in seen]
    assert np.concatenate([arrays["age"] for arrays in columns]).tolist() == [result.age for _, result in seen]


def test_labels_of_segments_are_those_of_a_sequential_run(config, engine, drives, tmp_path):
    config = replace(config, fusion=False)
    made, own = task(config, tmp_path, kind="label", segment_frames=3)
    (drive,) = own.inspect(str(drives / "a"))
    for segment in made.segments(drive):
        own.compute(segment)
    _, seen = sequential(engine.variant(config), drives / "a")
    found = list(unpacked(stored_of(made.segments(drive), made.store, [])))
    assert [columns["stamp_ns"] for columns, _ in found] == [frame.stamp_ns for frame, _ in seen]
    assert all(np.array_equal(labels, result.labels) for (_, labels), (_, result) in zip(found, seen, strict=True))


@pytest.mark.long
def test_with_fusion_few_pixels_differ_and_scores_hardly(tmp_path):
    """On a street, by the shipped network: the promise of docs/fleet.md."""
    config = settled(EngineConfig(num_threads=1, interval=1), on_gpu=False)
    with BagWriter(tmp_path / "street", "mcap") as bag:
        for frame in open_source("street:seed=5,frames=48,size=320x240"):
            stamp_ns = 10**18 + frame.stamp_ns
            bag.write_image("/camera/image_raw", "rgb8", frame.image, stamp_ns)
            bag.write_image("/camera/labels_truth", "mono8", frame.labels, stamp_ns)
    made, own = task(config, tmp_path / "out", kind="label", segment_frames=12)
    (drive,) = own.inspect(str(tmp_path / "street"))
    segments = made.segments(drive)
    assert [segment.begin for segment in segments] == [0, 0, 8, 20]
    for segment in segments:
        own.compute(segment)
    engine = build_engine(config)
    expected, seen = sequential(engine, tmp_path / "street")
    found = [labels for _, labels in unpacked(stored_of(segments, made.store, []))]
    same = [np.mean(labels == result.labels) for labels, (_, result) in zip(found, seen, strict=True)]
    assert np.mean(same) >= 0.999
    matrix = ConfusionMatrix(len(engine.classes))
    for labels, (frame, _) in zip(found, seen, strict=True):
        matrix.update(labels, frame.labels)
    assert 100 * matrix.mean_iou() == pytest.approx(expected["miou"], abs=0.1)


def test_without_truth_the_per_frame_network_is_the_reference(config, engine, drives, tmp_path):
    made, outcome = do(config, tmp_path, drives / "b", look_every=5)
    (row,) = rows(made, outcome)
    matrix = ConfusionMatrix(11)
    per_frame = in_mode(engine, "per_frame").stream()
    _, seen = sequential(engine, drives / "b", truth=False)
    for frame, result in seen[::5]:
        per_frame.reset()
        matrix.update(result.labels, per_frame.step(frame).labels)
    assert (row.figures["reference"], row.figures["looked_frames"]) == ("per-frame segmenter", 5)
    assert row.figures["labelled_frames"] == 0
    assert row.figures["miou"] == pytest.approx(100 * matrix.mean_iou(), abs=2e-3)
    assert row.figures["disagreement"] == pytest.approx(100 * (1 - matrix.pixel_accuracy()), abs=2e-3)
    address, worst = row.hardest[0]
    assert worst["differing"] == max(one["differing"] for _, one in row.hardest) and int(worst["frame"]) % 5 == 0
    _, arrays = made.store.load(address)
    assert cv2.imdecode(arrays["picture_differing"], cv2.IMREAD_COLOR).shape == (213, 320, 3)


def test_what_is_done_is_not_done_again_and_the_broken_one_is_named(config, drives, tmp_path):
    made, first = do(config, tmp_path, drives)
    assert first.queue.segments_computed == 8 and first.queue.frames_done == 2 * COUNT and not first.interrupted
    broken = first.queue.courses[f"{drives}/broken.mcap"]
    assert len(broken.errors) == 1 and "begins with none of" in broken.errors[0]
    moved = shutil.copytree(drives / "a", tmp_path / "elsewhere" / "a")
    made, again = do(config, tmp_path, drives, moved)
    assert again.queue.segments_computed == 0 and again.frames_per_second is None
    assert [row.figures["miou"] for row in rows(made, again)][0] == rows(made, again)[2].figures["miou"]
    _, other = do(replace(config, interval=1), tmp_path, drives / "a")
    assert other.queue.segments_computed > 0


class Interrupted:
    """A worker whose user presses Ctrl-C at a segment."""

    def __init__(self, worker, at):
        self._worker, self._left = worker, at

    def __getattr__(self, name):
        return getattr(self._worker, name)

    def compute(self, segment):
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return self._worker.compute(segment)


def test_ctrl_c_leaves_what_is_done(config, drives, tmp_path):
    _, outcome = do(config, tmp_path, drives / "a", wrap=lambda own: Interrupted(own, 2))
    assert outcome.interrupted and outcome.queue.segments_computed == 2
    _, again = do(config, tmp_path, drives / "a")
    assert not again.interrupted and again.queue.segments_computed == 2


class Failing(Interrupted):
    """A worker that runs out of memory at some segments."""

    def __init__(self, worker, indices, times):
        self._worker, self._indices, self._times = worker, indices, times

    def compute(self, segment):
        if segment.index in self._indices and self._times > 0:
            self._times -= 1
            raise MemoryError("cannot allocate")
        return self._worker.compute(segment)


def test_what_may_pass_is_tried_again_and_what_does_not_is_named(config, drives, tmp_path):
    made, outcome = do(config, tmp_path / "once", drives / "a", wrap=lambda own: Failing(own, {1}, 1))
    assert outcome.queue.retried == [(f"{drives}/a", "MemoryError: cannot allocate")]
    assert rows(made, outcome)[0].figures["frames"] == COUNT
    made, outcome = do(config, tmp_path / "always", drives / "a", wrap=lambda own: Failing(own, {1}, 99))
    (error,) = outcome.queue.courses[f"{drives}/a"].errors
    assert error == "/camera/image_raw: frames 6 to 9: given up after 3 tries: MemoryError: cannot allocate"
    assert rows(made, outcome)[0].figures["frames"] == COUNT - 4


def test_the_report_names_what_is_wrong_and_shows_where_to_label(config, engine, drives, tmp_path):
    made, outcome = do(config, tmp_path, drives)
    provenance = {"command": "vidseg fleet replay", "version": "1", "created": "now"}
    failed = [{"place": "drives/<broken>", "error": "damaged"}]
    page = html_report(rows(made, outcome), failed, provenance, made.store, engine.classes, {"frames computed": 46})
    assert "drives/&lt;broken&gt;: damaged" in page and "frames computed 46" in page
    assert page.count("data:image/jpeg") == 2 * 3 + 1 + 6 * 3 + 3 and page.count("data:image/png") == 1
    assert page.index("Worst drives") < page.index("Where to label next") < page.index("All drives, worst first")
    assert "http:" not in page and "https:" not in page


@pytest.mark.parametrize("form", FORMS[:2])
def test_labels_are_written_once_as_a_whole(config, engine, drives, tmp_path, form):
    out, folder = tmp_path / "out", tmp_path / "labels"
    made, outcome = do(config, out, drives / "a", folder=folder, kind="label", form=form)
    assert all(not course.errors for course in outcome.queue.courses.values())
    target = folder / "a_labels"
    assert [path.name for path in folder.iterdir()] == ["a_labels"]
    _, seen = sequential(engine, drives / "a")
    if form == "png":
        found = {int(path.stem): cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in target.iterdir()}
    else:
        source = BagSource(target, topic="/camera/labels")
        found = {frame.stamp_ns: frame.image[..., 0] for frame in source}
        assert [frame.received_ns for frame in source] == [frame.received_ns for frame, _ in seen]
    assert list(found) == [frame.stamp_ns for frame, _ in seen] if form != "png" else len(found) == COUNT
    same = [np.mean(found[frame.stamp_ns] == result.labels) for frame, result in seen]
    assert np.mean(same) > 0.95  # an untrained network's labels differ at random, where the past fades
    _, again = do(config, out, drives / "a", folder=folder, kind="label", form=form)
    assert again.queue.segments_computed == 0 and not again.queue.courses[f"{drives}/a"].errors
    assert not list((out / "segments").rglob("*.npz"))
    _, other = do(replace(config, interval=1), out, drives / "a", folder=folder, kind="label", form=form)
    assert "exists already, and is not of this task" in other.queue.courses[f"{drives}/a"].errors[0]


def test_a_folder_that_a_machine_does_not_see_is_told(config, tmp_path):
    made, _ = task(config, tmp_path)
    (tmp_path / SEEN).write_text("of another run")
    with pytest.raises(ConfigError, match="expected a folder that all machines see"):
        Worker(made, Files.of(config), 1)
    os.remove(tmp_path / SEEN)
    with pytest.raises(ConfigError, match="No such file"):
        Worker(made, Files.of(config), 1)


def test_files_travel_with_what_stands_beside_them(tmp_path, monkeypatch):
    weights, mask = tmp_path / "w.onnx", tmp_path / "ego.png"
    for path, content in ((weights, b"network"), (tmp_path / "w.card.yaml", b"card"), (mask, b"mask")):
        path.write_bytes(content)
    config = EngineConfig(weights=weights, ego_mask=mask)
    files = Files.of(config)
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "node"))
    here = files.unpacked(config)
    assert here.weights.startswith(str(tmp_path / "node"))
    card = Path(here.weights).with_suffix(".card.yaml")
    for path, content in ((here.weights, b"network"), (here.ego_mask, b"mask"), (card, b"card")):
        assert Path(path).read_bytes() == content
    assert files.unpacked(config) == here
    (tmp_path / "w.card.yaml").write_bytes(b"other")
    assert Files.of(config).digests()["weights"] != files.digests()["weights"]
