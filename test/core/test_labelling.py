import json
import signal

import cv2
import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.data.open import open_source
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.errors import ConfigError, SourceError
from vidseg_core.frame import Frame, Segmentation
from vidseg_core.labelling import Interruption, Results, prepare_output, run
from vidseg_core.overlay import overlay

SIZE = (72, 96)
NUM_FRAMES = 6
CLASSES = load_classes("camvid")


def truth(i):
    labels = np.full(SIZE, 3, np.uint8)
    labels[:30] = 0
    labels[40:60, 10 + 5 * i : 40 + 5 * i] = 8
    labels[-3:] = 255
    return labels


def picture(i):
    return CLASSES.lut[truth(i)] // 2 + np.random.default_rng(0).integers(0, 40, (*SIZE, 3), dtype=np.uint8)


@pytest.fixture
def drive(tmp_path):
    (tmp_path / "drive").mkdir()
    (tmp_path / "truth").mkdir()
    for i in range(NUM_FRAMES):
        cv2.imwrite(str(tmp_path / "drive" / f"f{i}.png"), picture(i)[..., ::-1])
        ids = truth(i)
        cv2.imwrite(str(tmp_path / "truth" / f"f{i}.png"), np.where(ids == 255, 11, ids).astype(np.uint8))
    return tmp_path


@pytest.fixture
def source(drive):
    return open_source(drive / "drive", rate_hz=10, labels=drive / "truth", classes=CLASSES)


@pytest.fixture
def out(drive):
    return prepare_output(drive / "out")


def engine(interval=0, classes=CLASSES, **options):
    return build_engine(EngineConfig(interval=interval, **options), TruthSegmenter(len(classes)), classes)


def written(folder):
    return json.loads((folder / "summary.json").read_text())


def test_labels_overlays_video_and_summary(source, out):
    summary = run(engine(), source, out, opacity=0.3)
    assert sorted(p.name for p in out.iterdir()) == ["labels", "overlay", "overlay.mp4", "summary.json"]
    for kind in ("labels", "overlay"):
        assert sorted(p.name for p in (out / kind).iterdir()) == [f"f{i}.png" for i in range(NUM_FRAMES)]
    for i in range(NUM_FRAMES):
        labels = cv2.imread(str(out / "labels" / f"f{i}.png"), cv2.IMREAD_UNCHANGED)
        known = truth(i) != 255
        np.testing.assert_array_equal(labels[known], truth(i)[known])
        drawn = cv2.imread(str(out / "overlay" / f"f{i}.png"))[..., ::-1]
        np.testing.assert_array_equal(drawn, overlay(picture(i), labels, CLASSES.lut, 0.3))
    video = open_source(out / "overlay.mp4")
    assert (video.rate_hz, video.size, len(list(video))) == (10.0, (96, 72), NUM_FRAMES)
    assert summary == written(out)
    assert summary["frames"] == summary["key_frames"] == summary["labelled_frames"] == NUM_FRAMES
    assert summary["source"] == {"name": "drive", "size": [96, 72], "rate_hz": 10.0}
    assert summary["miou"] == 1.0
    assert summary["iou"]["road"] == 1.0 and summary["iou"]["tree"] is None
    assert (summary["interrupted"], summary["error"], summary["resets"], summary["skipped"]) == (False, None, [], [])
    assert summary["engine"]["config"]["interval"] == 0


def test_key_frames_and_others_are_counted_and_timed(source, out):
    summary = run(engine(interval=2), source, out)
    assert (summary["frames"], summary["key_frames"]) == (6, 2)
    counts = {stage: times["count"] for stage, times in summary["milliseconds"].items()}
    assert counts["read"] == counts["step"] == counts["write"] == counts["decode"] == 6
    assert counts["step_key"] == counts["segment"] == 2
    assert counts["step_propagated"] == 4
    assert counts["flow"] == 5  # the second key frame, too, has a past to be fused with
    for times in summary["milliseconds"].values():
        assert 0 <= times["median"] <= times["p95"]
    rates = summary["frames_per_second"]
    assert 0 < rates["whole"] <= rates["engine"]
    assert 0.6 < summary["miou"] < 1.0


def test_what_is_not_wanted_is_not_written(source, out):
    run(engine(), source, out, video=False, png=False)
    assert [p.name for p in out.iterdir()] == ["summary.json"]
    run(engine(), source, out, video=False, max_frames=2)
    assert sorted(p.name for p in (out / "labels").iterdir()) == ["f0.png", "f1.png"]
    assert not (out / "overlay.mp4").exists()
    assert written(out)["frames"] == 2


def test_confidence_is_written_where_the_engine_computes_it(source, out):
    run(engine(confidence=True), source, out, video=False, png=False, max_frames=2)
    assert sorted(p.name for p in out.iterdir()) == ["confidence", "summary.json"]
    assert sorted(p.name for p in (out / "confidence").iterdir()) == ["f0.png", "f1.png"]
    levels = cv2.imread(str(out / "confidence" / "f0.png"), cv2.IMREAD_UNCHANGED)
    assert levels.shape == SIZE and levels.dtype == np.uint8
    assert levels[20, 50] == 255  # the stand-in's logits are 10 for the class and 0 for the 10 others
    assert levels[-1, 50] == round(255 / 11)  # of void all 11 are alike
    with pytest.raises(ConfigError, match="it has summary.json, confidence"):
        prepare_output(out)


def test_the_video_keeps_the_times_of_its_frames_but_for_breaks(out):
    days = 300 * 86400
    times_s = [5.0, 5.1, 5.2, 5.45, 5.5, days, days + 0.1, 4.0, 4.2]
    with Results(out, CLASSES, 10.0, 0.5, True, False) as results:
        for time_s in times_s:
            frame = Frame(picture(0), round(time_s * 1e9))
            results.write(frame, Segmentation(truth(0), frame.stamp_ns, True, 0, "first"))
    shown_s = [frame.stamp_ns / 1e9 for frame in open_source(out / "overlay.mp4")]
    assert shown_s == pytest.approx([0, 0.1, 0.2, 0.45, 0.5, 0.6, 0.7, 0.8, 1.0], abs=1e-5)


def test_a_change_of_size_is_a_reset(drive, source, out):
    cv2.imwrite(str(drive / "drive" / "f3.png"), np.zeros((80, 96, 3), np.uint8))
    cv2.imwrite(str(drive / "truth" / "f3.png"), np.zeros((80, 96), np.uint8))
    summary = run(engine(interval=9), source, out)
    assert [reset["frame"] for reset in summary["resets"]] == ["f3", "f4"]
    assert all("image size changed" in reset["reason"] for reset in summary["resets"])
    assert summary["key_frames"] == 3
    assert len(list(open_source(out / "overlay.mp4"))) == NUM_FRAMES


def test_an_unreadable_frame_ends_the_run_with_everything_before_it_on_disk(drive, source, out):
    (drive / "drive" / "f4.png").write_text("not an image")
    with pytest.raises(SourceError, match="f4.png: not an image"):
        run(engine(), source, out)
    summary = written(out)
    assert summary["frames"] == 4 and "f4.png: not an image" in summary["error"] and summary["miou"] == 1.0
    assert len(list(open_source(out / "overlay.mp4"))) == 4


def test_skipped_frames_are_listed(drive, out):
    (drive / "drive" / "f4.png").write_text("not an image")
    summary = run(engine(), open_source(drive / "drive", skip_bad=True, labels=drive / "truth", classes=CLASSES), out)
    assert summary["frames"] == 5
    assert [entry["frame"] for entry in summary["skipped"]] == ["f4"]
    assert "not an image" in summary["skipped"][0]["reason"]


def test_truth_of_other_classes_is_not_compared(source, out):
    cityscapes = load_classes("cityscapes")
    summary = run(engine(classes=cityscapes), source, out)
    assert (summary["miou"], summary["iou"], summary["labelled_frames"]) == (None, None, 0)


def interrupt(at, times=1):
    """Presses Ctrl-C while frame number `at` is in work."""

    def progress(frames):
        for i, frame in enumerate(frames):
            if i == at:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
            yield frame

    return progress


def test_ctrl_c_finishes_the_frame_and_the_files(source, out):
    before = signal.getsignal(signal.SIGINT)
    summary = run(engine(), source, out, progress=interrupt(at=2))
    assert (summary["interrupted"], summary["frames"]) == (True, 3)
    assert written(out) == summary
    assert len(list(open_source(out / "overlay.mp4"))) == 3
    assert sorted(p.name for p in (out / "labels").iterdir()) == ["f0.png", "f1.png", "f2.png"]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_does_not_wait(source, out):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run(engine(), source, out, progress=interrupt(at=2, times=2))
    assert written(out)["interrupted"] is True
    assert written(out)["frames"] == 2
    assert len(list(open_source(out / "overlay.mp4"))) == 2
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interruption_is_only_noted():
    with Interruption() as ctrl_c:
        assert not ctrl_c.requested
        signal.raise_signal(signal.SIGINT)
        assert ctrl_c.requested


def test_results_are_not_mixed_unless_told(source, out):
    run(engine(), source, out)
    with pytest.raises(ConfigError, match=r"out: expected a folder without results, it has summary.json, overlay.mp4"):
        prepare_output(out)
    (out / "notes.txt").write_text("mine")
    assert prepare_output(out, overwrite=True) == out
    assert (out / "summary.json").exists(), "nothing goes before a run really starts"
    run(engine(), source, out, video=False, max_frames=1)
    assert not (out / "overlay.mp4").exists() and (out / "notes.txt").exists()
    assert written(out)["frames"] == 1


def test_an_output_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="expected a folder that can be written"):
        prepare_output(tmp_path / "file" / "out")
