import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import pytest
import torch
from torch import nn

from vidseg_core.backends import blob_cache
from vidseg_core.backends.backend import Reloadable
from vidseg_core.backends.blob_cache import cache_directory, identity_of
from vidseg_core.classes import load_classes
from vidseg_core.cli.main import main
from vidseg_core.errors import CheckpointError
from vidseg_core.models import architectures, known, loaders
from vidseg_core.models.architectures import Architecture
from vidseg_core.models.card import InputCard, OutputCard
from vidseg_core.models.files import save_weights
from vidseg_core.models.open import open_model, open_reloadable
from vidseg_core.models.registry import load_registry
from vidseg_core.networks.guided_refine import GuidedRefine
from vidseg_core.networks.swiftnet import SwiftNet

CAMVID = load_classes("camvid")


@pytest.fixture(scope="module")
def swiftnet_state():
    torch.manual_seed(0)
    return SwiftNet(11).state_dict()


def test_a_shipped_model_has_a_full_card():
    model = open_model("camvid-swiftnet-r18")
    card = model.card
    assert set(model.networks) == {"segmenter"} and not model.networks["segmenter"].training
    assert card.architecture == "swiftnet-r18" and card.registered_as == "camvid-swiftnet-r18"
    assert card.classes == CAMVID and card.licence == "Apache-2.0" and card.input.scale == 1.5
    assert card.input.multiple == 32 and card.output == OutputCard("logits", 4)
    assert card.checksum == hashlib.sha256(model.path.read_bytes()).hexdigest()
    assert card.activation_ranges["backbone.conv1"] == (-1.71, 3.828) and "training" in card.notes


def test_a_file_of_a_later_card_or_format_is_refused(tmp_path, swiftnet_state):
    path = tmp_path / "net.safetensors"
    save_weights(path, swiftnet_state, {"architecture": "swiftnet-r18", "card_version": 2})
    with pytest.raises(CheckpointError, match=r"net\.safetensors: card_version: expected 1 .*, got 2"):
        open_model(path)
    path.write_bytes(path.read_bytes().replace(b"vidseg-1", b"vidseg-2"))
    with pytest.raises(CheckpointError, match="expected metadata with format 'vidseg-1', found 'vidseg-2'"):
        open_model(path)


def test_a_role_that_the_file_does_not_bring(tmp_path, swiftnet_state):
    torch.save(swiftnet_state, tmp_path / "net.pt")
    assert set(open_model(tmp_path / "net.pt", "segmenter").networks) == {"segmenter"}
    with pytest.raises(CheckpointError, match="expected weights of swnet-seq or guided-refine, found swiftnet-r18"):
        open_model(tmp_path / "net.pt", "refine")
    torch.save({"a": torch.zeros(1)}, tmp_path / "a.pt")
    with pytest.raises(
        CheckpointError, match=r"expected weights of swiftnet-lite0 or swiftnet-r18 or .*, found an unknown network"
    ):
        open_model(tmp_path / "a.pt")


def test_classes_are_checked_by_number_and_by_name(tmp_path, swiftnet_state):
    path = tmp_path / "net.safetensors"
    table = CAMVID.to_dict()
    table["classes"][0]["name"] = "heaven"
    save_weights(path, swiftnet_state, {"architecture": "swiftnet-r18", "classes": table})
    with pytest.raises(CheckpointError, match="expected the classes of table 'camvid' .*found those of .*heaven"):
        open_model(path).check_classes(CAMVID)
    refine = {f"refine.{key}": value for key, value in GuidedRefine(5).state_dict().items()}
    torch.save(refine, tmp_path / "refine.pt")
    with pytest.raises(CheckpointError, match="expected 11 classes as in class table 'camvid', found 5"):
        open_model(tmp_path / "refine.pt").check_classes(CAMVID)


class Dot(nn.Module):
    num_classes = 2

    def __init__(self):
        super().__init__()
        self.dot = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.dot(x)


def load_dot(path, tensors):
    network = Dot()
    loaders.fill(network, tensors, path)
    return {"segmenter": network}


def test_an_architecture_is_added_by_one_entry(tmp_path, monkeypatch, capsys):
    entry = Architecture("dot", (("dot.weight",),), {"segmenter": ""}, load_dot, InputCard(multiple=2))
    monkeypatch.setattr(architectures, "ARCHITECTURES", [*architectures.ARCHITECTURES, entry])
    network = Dot()
    torch.save(network.state_dict(), tmp_path / "dot.pt")
    model = open_model(tmp_path / "dot.pt", "segmenter")
    assert model.card.architecture == "dot" and model.card.input.multiple == 2
    assert torch.equal(model.networks["segmenter"].dot.weight, network.dot.weight)
    ours = tmp_path / "dot.safetensors"
    assert main(["weights", "convert", str(tmp_path / "dot.pt"), str(ours)]) == 0
    capsys.readouterr()
    assert main(["weights", "show", str(ours), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["architecture"] == "dot"


LEAN = """
import sys
from vidseg_core.backends.blob_cache import identity_of
from vidseg_core.backends.choose import Runtime
from vidseg_core.devices import CPU
from vidseg_core.models.open import open_reloadable

model = open_reloadable(sys.argv[1])
model.check_classes(model.card.classes)
Runtime("auto", CPU, 1)
assert "torch" not in sys.modules
print(identity_of(model.networks["segmenter"]))
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def loads(monkeypatch):
    """Count the networks that are filled with a file's tensors."""
    counted, fill = [], loaders.fill
    monkeypatch.setattr(loaders, "fill", lambda network, *given: counted.append(network) or fill(network, *given))
    return counted


@pytest.mark.parametrize("name", ["camvid-swiftnet-r18", "camvid-update-lite0"])
def test_what_was_opened_before_needs_no_pytorch(name, cache):
    expected = open_model(name, "segmenter")
    for _ in range(2):
        model = open_reloadable(name)
        network = model.networks["segmenter"]
        assert isinstance(network, Reloadable) and model.path == expected.path and model.card == expected.card
        assert network.identity == identity_of(expected.networks["segmenter"]) and network.num_classes == 11
        model.check_classes(CAMVID)
    done = subprocess.run([sys.executable, "-c", LEAN, name], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == network.identity
    state = network.load().state_dict()
    assert all(torch.equal(state[key], value) for key, value in expected.networks["segmenter"].state_dict().items())


def test_only_the_same_file_code_and_pytorch_are_known(tmp_path, cache, loads, monkeypatch):
    def count(path):
        before = len(loads)
        open_reloadable(path)
        return len(loads) - before

    path = tmp_path / "net.safetensors"
    state = open_model("camvid-update-lite0").networks["segmenter"].state_dict()
    save_weights(path, state, {"architecture": "swiftnet-lite0"})
    assert [count(path), count(path)] == [1, 0]
    save_weights(path, state, {"architecture": "swiftnet-lite0", "note": "another"})
    assert [count(path), count(path)] == [1, 0]
    with monkeypatch.context() as patch:
        patch.setattr(known, "version", lambda name: version(name) + ".1")
        assert [count(path), count(path)] == [1, 0]
    code = tmp_path / "code.py"
    monkeypatch.setattr(known, "code_files", lambda: {*blob_cache.code_files(), code})
    for text in ("a = 1", "a = 2"):
        code.write_text(text)
        assert [count(path), count(path)] == [1, 0]


def test_a_damaged_record_is_as_none_and_a_damaged_file_as_ever(tmp_path, cache, loads):
    path = tmp_path / "net.safetensors"
    path.write_bytes(open_model("camvid-swiftnet-r18").path.read_bytes())
    card = open_reloadable(path).card
    [record] = cache_directory().glob("*.network")
    whole, so_far = record.read_bytes(), len(loads)
    for damaged in (b"", whole[:-1], whole.replace(b'"num_classes": 11', b'"num_classes": 12'), b"\xff" + whole):
        record.write_bytes(damaged)
        assert open_reloadable(path).card == card
        assert record.read_bytes() == whole
    assert len(loads) == so_far + 4
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    for opening in (open_model, open_reloadable):
        with pytest.raises(CheckpointError, match=r"net\.safetensors: expected a safetensors file; it is truncated"):
            opening(path)
    path.write_bytes(content[:5])
    for opening in (open_model, open_reloadable):
        with pytest.raises(CheckpointError, match=r"net\.safetensors: expected a safetensors file; it is truncated"):
            opening(path)
    with pytest.raises(
        CheckpointError, match="expected weights of swiftnet-lite0 or swiftnet-r18, found guided-refine"
    ):
        open_reloadable("camvid-swnet-seq")


def test_ranges_in_the_registry_are_checked_of_a_known_file_too(cache, loads):
    records = load_registry()
    [record] = [one for one in records if one.name == "camvid-swiftnet-r18"]
    strange = (replace(record, activation_ranges={"nowhere": [0.0, 1.0]}),)
    open_reloadable("camvid-swiftnet-r18")
    assert len(loads) == 1
    for opening, loaded in ((open_reloadable, 1), (open_model, 2)):
        with pytest.raises(CheckpointError, match="names of its convolutions, got 'nowhere'"):
            opening("camvid-swiftnet-r18", records=strange)
        assert len(loads) == loaded


def test_networks_from_elsewhere_are_not_remembered(tmp_path, cache, loads, monkeypatch, swiftnet_state):
    entry = Architecture("dot", (("dot.weight",),), {"segmenter": ""}, load_dot, InputCard(multiple=2))
    monkeypatch.setattr(architectures, "ARCHITECTURES", [*architectures.ARCHITECTURES, entry])
    ours, public = tmp_path / "dot.safetensors", tmp_path / "net.pt"
    save_weights(ours, Dot().state_dict(), {"architecture": "dot"})
    torch.save(swiftnet_state, public)
    for path in (ours, ours, public, public):
        so_far = len(loads)
        network = open_reloadable(path).networks["segmenter"]
        assert len(loads) == so_far + 1 and network.identity == identity_of(network.load())
    assert not list(cache_directory().glob("*.network"))


def test_what_the_installation_knows_serves_all_users(tmp_path, cache, loads, monkeypatch):
    monkeypatch.setattr(blob_cache, "_INSTALLED", tmp_path / "installed")
    with blob_cache.stored_in_the_installation():
        open_reloadable("camvid-update-lite0")
    [record] = (tmp_path / "installed").iterdir()
    assert record.stat().st_mode & 0o777 == 0o644 and len(loads) == 1
    open_reloadable("camvid-update-lite0")
    assert len(loads) == 1 and not cache_directory().exists()
