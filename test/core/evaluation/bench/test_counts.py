import numpy as np
import torch

from vidseg_core.classes import load_classes
from vidseg_core.engine.config import EngineConfig
from vidseg_core.evaluation.bench import counts
from vidseg_core.evaluation.bench.propagated import Case
from vidseg_core.models.files import save_weights
from vidseg_core.networks.swiftnet import SwiftNet
from vidseg_core.threads import set_num_threads


def test_a_frame_is_counted_part_by_part(tmp_path):
    torch.manual_seed(0)
    metadata = {"architecture": "swiftnet-r18", "classes": load_classes("camvid").to_dict()}
    path = tmp_path / "net.safetensors"
    save_weights(path, SwiftNet(11, "r18", 16).state_dict(), metadata)
    config = EngineConfig(weights=path, device="cpu", runtime="eager", num_threads=1)
    rows = counts.bench_counts(config, [Case((240, 320), 8)])["rows"]
    set_num_threads()
    parts = {row["part"]: row for row in rows}
    assert list(parts) == ["message read", "labelled", "overlay drawn", "labels written", "overlay written"]
    assert all(row["python"] > 0 and row["builtin"] > 0 for row in rows)
    assert all(row["locks"] == 0 for row in rows)  # on one thread
    # The picture as RGB; the picture under its colours; what is written goes into memory that is there.
    assert 1 <= parts["message read"]["pictures"] < 1.5 and 1 <= parts["overlay drawn"]["pictures"] < 1.9
    assert parts["labels written"]["pictures"] < 0.2 and parts["overlay written"]["pictures"] < 0.2
    assert "overlay drawn" in counts.table({"rows": rows})


def test_calls_and_locks_are_those_of_the_work():
    lock, queue = counts.threading.Lock(), counts.SimpleQueue()

    def work():
        lock.acquire()
        queue.put(len([1]))
        lock.release()
        return np.empty(1_000_000, np.uint8)

    found, memory = {}, {}
    assert counts._counted(found, "part", work).size == counts._measured(memory, "part", work).size == 1_000_000
    assert found["part"] == {"python": 0, "builtin": 5, "locks": 2}
    assert 1_000_000 <= memory["part"] < 1_100_000
