import hashlib
import json

import pytest
import torch
from torch import nn

from vidseg_core.classes import load_classes
from vidseg_core.cli.main import main
from vidseg_core.errors import CheckpointError
from vidseg_core.models import architectures
from vidseg_core.models.architectures import Architecture
from vidseg_core.models.card import InputCard, OutputCard
from vidseg_core.models.files import save_weights
from vidseg_core.models.open import open_model
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
    architectures.fill(network, tensors, path)
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
