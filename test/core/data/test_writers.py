import json
import subprocess
import sys

import av
import cv2
import numpy as np
import pytest

from vidseg_core.data.open import open_source
from vidseg_core.data.writers import VideoWriter, output_folder, write_image, write_json, write_labels
from vidseg_core.errors import ConfigError


def flat(height, width, color):
    return np.full((height, width, 3), color, np.uint8)


def test_the_video_is_one_that_browsers_play(tmp_path):
    path = tmp_path / "v.mp4"
    with VideoWriter(path, 15) as writer:
        for i in range(5):
            writer.write(flat(70, 90, (10 * i, 50, 90)))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.pix_fmt, stream.width, stream.height) == ("yuv420p", 90, 70)
        assert (stream.average_rate, stream.frames) == (15, 5)
    data = path.read_bytes()
    assert 0 < data.find(b"moov") < data.find(b"mdat")


@pytest.mark.parametrize("color", [(200, 30, 30), (30, 200, 30), (30, 30, 200), (128, 64, 128)])
def test_colours_survive(tmp_path, color):
    with VideoWriter(tmp_path / "v.mp4", 30) as writer:
        writer.write(flat(64, 64, color))
    (frame,) = open_source(tmp_path / "v.mp4")
    assert np.abs(frame.image.astype(int) - color).max() <= 4


@pytest.mark.parametrize(("size", "stored"), [((71, 90), (72, 90)), ((70, 91), (70, 92)), ((71, 91), (72, 92))])
def test_odd_sizes_are_padded_with_their_border(tmp_path, size, stored):
    image = flat(*size, (10, 20, 30))
    image[-1], image[:, -1] = 240, 240
    with VideoWriter(tmp_path / "v.mp4", 30, crf=0) as writer:
        writer.write(image)
    (frame,) = open_source(tmp_path / "v.mp4")
    assert frame.size == stored
    assert frame.image[-1, -1].min() > 200 and frame.image[0, 0].max() < 60


def test_later_frames_are_scaled_to_the_first(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 30) as writer:
        writer.write(flat(64, 96, 50))
        writer.write(flat(128, 128, 200))
    frames = list(open_source(tmp_path / "v.mp4"))
    assert [f.size for f in frames] == [(64, 96), (64, 96)]
    assert abs(frames[1].image.mean() - 200) < 4


def test_a_video_is_complete_after_an_exception(tmp_path):
    with pytest.raises(KeyboardInterrupt), VideoWriter(tmp_path / "v.mp4", 30) as writer:
        for i in range(7):
            writer.write(flat(64, 64, 10 * i))
        raise KeyboardInterrupt
    assert len(list(open_source(tmp_path / "v.mp4"))) == 7
    writer.close()


def test_a_video_without_frames_is_no_file(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 30):
        pass
    assert not (tmp_path / "v.mp4").exists()


@pytest.mark.parametrize("rate_hz", [1e-6, 14.98731, 1000.0])
def test_unusual_rates(tmp_path, rate_hz):
    with VideoWriter(tmp_path / "v.mp4", rate_hz) as writer:
        for _ in range(3):
            writer.write(flat(64, 64, 0))
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.streams.video[0].frames == 3
        if rate_hz > 1:
            assert float(container.streams.video[0].average_rate) == pytest.approx(rate_hz, rel=1e-4)


def test_frames_are_shown_when_they_were_taken(tmp_path):
    steps_ms = [None, 40, 40, 120, 7, None, 2000]
    with VideoWriter(tmp_path / "v.mp4", 25) as writer:
        for step_ms in steps_ms:
            writer.write(flat(64, 64, 0), None if step_ms is None else step_ms * 10**6)
    stamps_ns = [frame.stamp_ns for frame in open_source(tmp_path / "v.mp4")]
    assert stamps_ns == pytest.approx([t * 1e6 for t in (0, 40, 80, 200, 207, 247, 2247)], abs=6000)  # half a tick


def test_frames_that_come_at_once_stay_in_order(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 25) as writer:
        for step_ns in (1, 1, 10**18):
            writer.write(flat(64, 64, 0), step_ns)
    stamps_ns = [frame.stamp_ns for frame in open_source(tmp_path / "v.mp4")]
    assert stamps_ns == pytest.approx([0, 1e9 / 90_000, 1001e9], abs=12_000)


def test_what_is_not_an_image_is_refused(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 30) as writer, pytest.raises(ValueError, match="H x W x 3 uint8, got float64"):
        writer.write(np.zeros((64, 64, 3)))
    with pytest.raises(ValueError, match="H x W x 3 uint8"):
        write_image(tmp_path / "a.png", np.zeros((64, 64), np.uint8))
    with pytest.raises(ValueError, match="labels as H x W uint8, got int64"):
        write_labels(tmp_path / "a.png", np.zeros((64, 64), np.int64))
    assert list(tmp_path.iterdir()) == []


def test_png_files_are_lossless_and_leave_nothing_beside_them(tmp_path):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 256, (37, 41), dtype=np.uint8)
    image = rng.integers(0, 256, (37, 41, 3), dtype=np.uint8)
    write_labels(tmp_path / "labels.png", labels)
    write_image(tmp_path / "image.png", image)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "labels.png"), cv2.IMREAD_UNCHANGED), labels)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "image.png"))[..., ::-1], image)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["image.png", "labels.png"]


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from vidseg_core.data.writers import VideoWriter, write_image
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
try:
    if sys.argv[1].endswith(".png"):
        write_image(Path(sys.argv[1]), noise)
    else:
        with VideoWriter(sys.argv[1], 30) as writer:
            for _ in range(20):
                noise = 255 - noise[::-1]
                writer.write(noise)
except OSError as error:
    print(error.filename, error.strerror)
"""


@pytest.mark.parametrize("name", ["a.png", "a.mp4"])
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path, checkout, name):
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / name)]
    result = subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=120)
    assert result.stdout == f"{tmp_path / name} File too large\n", result.stderr
    assert name == "a.mp4" or list(tmp_path.iterdir()) == []


def test_json_is_replaced_as_a_whole(tmp_path):
    write_json(tmp_path / "a.json", {"a": [1, None]})
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None]}


def test_an_output_folder_is_made_and_tried(tmp_path):
    folder = output_folder(tmp_path / "a" / "b")
    assert folder.is_dir() and list(folder.iterdir()) == []
    assert output_folder(folder) == folder
    (tmp_path / "file").touch()
    for bad in (tmp_path / "file", tmp_path / "file" / "sub"):
        with pytest.raises(ConfigError, match=r"file.*: expected a folder that can be written: (Not|File)"):
            output_folder(bad)


def test_images_are_written_in_the_encoders_fastest_form(tmp_path):
    image = np.zeros((64, 96, 3), np.uint8)
    image[20:40, 30:60] = 1, 2, 3
    write_image(tmp_path / "image.png", image)
    assert (tmp_path / "image.png").read_bytes() == cv2.imencode(".png", image[..., ::-1])[1].tobytes()
