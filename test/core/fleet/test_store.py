import os

import numpy as np
import pytest

from vidseg_core.errors import SourceError
from vidseg_core.fleet.store import Store

ADDRESS = "ab" + "0" * 62


def test_what_was_saved_is_loaded(tmp_path):
    store = Store(tmp_path / "segments")
    assert not store.has(ADDRESS)
    store.save(ADDRESS, {"frames": 3, "error": None}, {"number": np.arange(3), "none": np.zeros(0, np.uint8)})
    assert store.has(ADDRESS)
    meta, arrays = store.load(ADDRESS)
    assert meta == {"frames": 3, "error": None}
    assert arrays["number"].tolist() == [0, 1, 2] and arrays["none"].shape == (0,)
    assert [path.name for path in (tmp_path / "segments" / "ab").iterdir()] == [f"{ADDRESS}.npz"]
    store.remove(ADDRESS)
    assert not store.has(ADDRESS)
    store.remove(ADDRESS)


def test_a_result_is_there_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    store = Store(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        store.save(ADDRESS, {}, {})
    assert not store.has(ADDRESS) and list((tmp_path / "ab").iterdir()) == []


@pytest.mark.parametrize("keep", [0, 20, -30])
def test_a_damaged_result_is_named(tmp_path, keep):
    store = Store(tmp_path)
    store.save(ADDRESS, {"a": 1}, {"number": np.arange(1000)})
    path = store.path(ADDRESS)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SourceError, match=f"{ADDRESS}.npz: expected the result of a segment"):
        store.load(ADDRESS)
