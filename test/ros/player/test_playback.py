"""What is played, in which order and when; nothing here needs ROS."""

import itertools

import cv2
import numpy as np
import pytest

from vidseg_core.data.open import open_source
from vidseg_core.errors import SourceError
from vidseg_core.frame import Frame
from vidseg_ros.player.playback import Film, Shot, develop, encode_jpeg, read_ahead, schedule

NUM_FRAMES = 5
FRAME_BYTES = 96 * 128 * 3
PLENTY = 10**9


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(NUM_FRAMES):
        cv2.imwrite(str(tmp_path / f"{i}.png"), rng.integers(0, 256, (96, 128, 3), dtype=np.uint8))
    return tmp_path


def shots_at(*stamps_s):
    return [Shot(b"", (1, 1), round(stamp_s * 1e9), None) for stamp_s in stamps_s]


def stamps(shots):
    return [shot.stamp_ns for shot in shots]


@pytest.mark.parametrize(("memory", "is_whole"), [(PLENTY, True), (2 * FRAME_BYTES, False), (1, False)])
def test_a_film_shows_its_source_whether_or_not_it_fits_into_memory(folder, memory, is_whole):
    source = open_source(folder)
    film = Film(source, memory_bytes=memory)
    assert film.is_whole == is_whole
    shots = list(itertools.islice(film.shots(loop=True), 2 * NUM_FRAMES + 1))
    frames = [*source, *source, next(iter(source))]
    assert stamps(shots) == [frame.stamp_ns for frame in frames]
    assert all((shot.picture == frame.image).all() for shot, frame in zip(shots, frames, strict=True))


@pytest.mark.parametrize("memory", [PLENTY, 1])
def test_without_loop_it_ends(folder, memory):
    assert len(list(Film(open_source(folder), memory_bytes=memory).shots())) == NUM_FRAMES


def test_a_film_holds_no_more_than_it_may(folder):
    film = Film(open_source(folder), memory_bytes=2 * FRAME_BYTES + 1)
    assert film.num_held == 3
    showing = film.shots()
    next(showing)
    assert film.num_held == 2


def test_a_frame_that_cannot_be_read_is_reported_when_its_turn_comes(folder):
    (folder / "3.png").write_bytes(b"no picture")
    source = open_source(folder)
    with pytest.raises(SourceError, match="3.png"):
        Film(source, memory_bytes=PLENTY)
    showing = Film(source, memory_bytes=1).shots()
    assert len([next(showing) for _ in range(3)]) == 3
    with pytest.raises(SourceError, match="3.png"):
        next(showing)


def test_progress_sees_every_frame_that_is_read_beforehand(folder):
    seen = []

    def progress(shots):
        for shot in shots:
            seen.append(shot)
            yield shot

    Film(open_source(folder), memory_bytes=PLENTY, progress=progress)
    assert len(seen) == NUM_FRAMES


def test_a_shot_keeps_picture_and_labels_but_not_the_flow():
    image = np.arange(64 * 80 * 3, dtype=np.uint8).reshape(64, 80, 3)
    padded = np.zeros((64, 90, 3), np.uint8)
    padded[:, :80] = image
    labels = np.full((64, 80), 3, np.uint8)
    shot = develop(Frame(padded[:, :80], 7, labels=labels, flow=np.zeros((64, 80, 2), np.float32)))
    assert (shot.picture == image).all() and shot.picture.flags.c_contiguous
    assert (shot.labels == labels).all() and shot.stamp_ns == 7 and shot.size == (64, 80)
    assert shot.num_bytes == image.nbytes + labels.nbytes


def test_jpeg():
    image = np.zeros((64, 80, 3), np.uint8)
    image[:, :40, 0] = 255
    shot = develop(Frame(image, 0), jpeg_quality=95)
    decoded = cv2.cvtColor(cv2.imdecode(np.frombuffer(shot.picture, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(decoded[:, [10, 70]].astype(int) - image[:, [10, 70]]).max() <= 4
    assert shot.num_bytes == len(shot.picture) < image.nbytes
    with pytest.raises(SourceError, match="65500 pixels a side, got 65501 x 1"):
        encode_jpeg(np.zeros((1, 65501, 3), np.uint8), 90)


def test_a_rate_makes_a_schedule_without_drift():
    due = [due_ns for due_ns, _ in schedule(shots_at(*range(3001)), 30.0, by_stamps=False)]
    assert due[0] == 0 and due[1] == 33_333_333 and due[3000] == 100 * 10**9


def test_stamps_make_a_schedule_that_goes_on_at_the_seam_of_a_loop():
    shots = shots_at(5.0, 5.1, 5.4, 5.0, 5.1, 5.1)
    due = [due_ns for due_ns, _ in schedule(shots, 10.0, by_stamps=True)]
    assert due == [0, 100_000_000, 400_000_000, 500_000_000, 600_000_000, 700_000_000]


def test_nobody_waits_until_a_clock_that_was_set_gets_there():
    received_s, days = [0.0, 0.1, 0.2, 0.3, 0.4], 300 * 86400.0
    stamps_s = [5.0, 5.1, days, days + 0.1, 4.0]
    shots = [
        Shot(b"", (1, 1), round(a * 1e9), None, received_ns=round(b * 1e9))
        for a, b in zip(stamps_s, received_s, strict=True)
    ]
    due = [due_ns for due_ns, _ in schedule(shots, 20.0, by_stamps=True)]
    assert due == [0, 100_000_000, 200_000_000, 300_000_000, 400_000_000]
    due = [due_ns for due_ns, _ in schedule(shots_at(*stamps_s), 20.0, by_stamps=True)]
    assert due == [0, 100_000_000, 150_000_000, 250_000_000, 300_000_000]


def test_read_ahead_keeps_order_and_passes_errors_on():
    def shots():
        yield from shots_at(*range(50))
        raise SourceError("the tape is torn")

    read = read_ahead(shots(), num_shots=3)
    assert stamps(next(read) for _ in range(50)) == stamps(shots_at(*range(50)))
    with pytest.raises(SourceError, match="torn"):
        next(read)
