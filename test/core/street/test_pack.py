"""A street that is packed has the frames that are drawn, and is drawn once."""

import numpy as np
import pytest

from vidseg_core.street import Street, StreetConfig, pack

CONFIG = StreetConfig(seed=4, width=320, height=240, num_frames=3)


@pytest.fixture
def packs(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(pack, "FEW_PIXELS", 0)
    return pack.packs_directory()


@pytest.fixture
def in_this_process(monkeypatch):
    """Processes take seconds to begin."""
    monkeypatch.setattr(pack, "_drawn", lambda config: (pack._draw((config, i)) for i in range(config.num_frames)))


def assert_drawn(frames):
    street = Street(CONFIG)
    assert len(frames) == CONFIG.num_frames
    for i, frame in enumerate(frames):
        drawn = street.render(i)
        assert np.array_equal(frame.image, drawn.image) and np.array_equal(frame.labels, drawn.labels)
        assert (frame.stamp_ns, frame.name) == (drawn.stamp_ns, drawn.name)


def test_packed_frames_are_the_drawn_ones_and_drawn_once(packs, monkeypatch):
    assert_drawn(list(pack.packed_frames(CONFIG)))
    (path,) = packs.iterdir()
    assert path.suffix == ".zip"
    monkeypatch.setattr(pack, "_drawn", lambda config: pytest.fail("it was drawn again"))
    assert_drawn(list(pack.packed_frames(CONFIG)))


def test_a_pack_that_is_not_drawn_to_its_end_is_none(packs, in_this_process):
    frames = pack.packed_frames(CONFIG)
    next(frames)
    frames.close()
    assert list(packs.iterdir()) == []


def test_few_frames_are_drawn_at_once(packs, monkeypatch):
    monkeypatch.setattr(pack, "FEW_PIXELS", 10**9)
    assert_drawn(list(pack.packed_frames(CONFIG)))
    assert not packs.exists()


def test_where_nothing_can_be_written_it_is_drawn_all_the_same(packs, in_this_process, caplog):
    packs.parent.mkdir(parents=True)
    packs.write_text("a file")
    assert_drawn(list(pack.packed_frames(CONFIG)))
    assert "the street is drawn anew each time" in caplog.text


def test_packs_that_were_used_longest_ago_make_room(packs, in_this_process, monkeypatch):
    list(pack.packed_frames(CONFIG))
    monkeypatch.setattr(pack, "MOST_BYTES", 1)
    other = StreetConfig(seed=5, width=320, height=240, num_frames=3)
    list(pack.packed_frames(other))
    (left,) = packs.iterdir()
    assert left.name.startswith("5_320x240")
