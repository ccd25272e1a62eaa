"""Exported programs (.pt2): what they are, and that none of their author's code is ever run."""

import io
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from vidseg_core.backends import probe
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import CheckpointError
from vidseg_core.frame import Frame
from vidseg_core.models.exported import study
from vidseg_core.models.open import open_model

CARD = "classes: [a, b, c]\ninput: {mean: [0, 0, 0], std: [255, 255, 255]}\noutput: {name: out}\n"
MODEL, WEIGHTS = "models/model.json", "data/weights/model_weights_config.json"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return {"out": y, "aux": nn.functional.avg_pool2d(y, 2)}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    torch.manual_seed(0)
    network = Net().eval()
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    torch.export.save(torch.export.export(network, (torch.zeros(1, 3, 64, 96),)), path)
    path.with_suffix(".card.yaml").write_text(CARD)
    return path, network


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(probe, "cache_directory", lambda: tmp_path / "cache" / "openvino")
    monkeypatch.setattr(probe, "in_a_process_of_its_own", lambda asked: "\n".join(probe.trials(asked)))


def changed(source, path, entry=None, change=None, extra=None):
    """Copy an archive; `change` is made to the JSON of `entry`, `extra` has further entries."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if entry is not None and name.endswith(entry):
                value = json.loads(content)
                change(value)
                content = json.dumps(value).encode()
            new.writestr(name, content)
        for name, content in (extra or {}).items():
            new.writestr(f"net/{name}", content)
    path.with_suffix(".card.yaml").write_text(CARD)
    return path


def test_labels_are_the_programs(program):
    path, network = program
    found = study(path)
    assert found.value("input.size") == (64, 96) and found.network.backends[0] == "eager"
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    with torch.inference_mode():
        scores = network(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)["out"]
    config = EngineConfig(weights=str(path), interval=0, fusion=False, runtime="eager")
    with build_engine(config) as engine:
        assert (engine.stream().step(Frame(image, 0)).labels == scores.argmax(1)[0].numpy()).all()


def test_what_it_does_not_tell_is_asked_for(program, tmp_path):
    path = tmp_path / "net.pt2"
    path.write_bytes(program[0].read_bytes())
    with pytest.raises(CheckpointError) as caught:
        open_model(path)
    for line in (
        "`input: {mean: [",
        "`output: {name: out}  # or another one of out [1, 3, 64, 96], aux",
        "`classes: [",
    ):
        assert line in str(caught.value)


class Trap:
    """What tells if it was unpickled."""

    sprung = False

    def __reduce__(self):
        return setattr, (Trap, "sprung", True)


def first_node(model):
    return model["graph_module"]["graph"]["nodes"][0]


@pytest.mark.parametrize(
    ("entry", "change", "extra", "reason"),
    [
        (None, None, {"data/constants/opaque_obj_0": pickle.dumps(Trap())}, "holds pickled code .*opaque_obj_0"),
        (None, None, {"data/weights/model.pt": pickle.dumps(Trap())}, "holds pickled code .*data/weights/model.pt"),
        (None, None, {"data/aotinductor/model/a.so": b"ELF"}, "holds compiled code"),
        (WEIGHTS, lambda v: next(iter(v["config"].values())).update(use_pickle=True), None, "holds pickled code"),
        (MODEL, lambda v: first_node(v).update(target="torch.hub.load"), None, "an operation .*'torch.hub.load'"),
        (MODEL, lambda v: first_node(v).update(target="torch.ops.load_library"), None, "an operation of PyTorch's own"),
        (MODEL, lambda v: v.update(range_constraints={"__import__('os').abort()": {}}), None, "an expression of sizes"),
        (MODEL, lambda v: first_node(v)["inputs"][0].update(name="x=(print(1))"), None, "expected a name"),
    ],
    ids=["opaque object", "pickled weights", "compiled", "pickled tensor", "function", "library", "expression", "name"],
)  # fmt: skip
def test_code_is_refused_unread(program, tmp_path, entry, change, extra, reason):
    path = changed(program[0], tmp_path / "net.pt2", entry, change, extra)
    with pytest.raises(CheckpointError, match=reason):
        open_model(path)
    assert not Trap.sprung


def test_a_pickle_by_that_name_is_refused_unread(tmp_path):
    path = tmp_path / "net.pt2"
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(CheckpointError, match="truncated or of another kind"):
        open_model(path)
    buffer = io.BytesIO()
    torch.save({"a": Trap()}, buffer)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="found an archive without models/model.json"):
        open_model(path)
    assert not Trap.sprung


def test_a_truncated_one_says_so(program, tmp_path):
    path = tmp_path / "net.pt2"
    path.write_bytes(program[0].read_bytes()[:2000])
    with pytest.raises(CheckpointError, match="truncated or of another kind"):
        open_model(path)
