import json

import pytest
import torch
from safetensors.torch import save_file

from vidseg_core.classes import load_classes
from vidseg_core.errors import CheckpointError
from vidseg_core.models import checkpoint, files
from vidseg_core.models.architectures import FLOW, IMAGENET, SEGMENTER
from vidseg_core.models.open import open_model
from vidseg_core.networks.efficientnet_lite import EfficientNetLite0
from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.networks.flownet_s import FlowNet2S, UpstreamFlowNetS
from vidseg_core.networks.guided_refine import GuidedRefine
from vidseg_core.networks.swiftnet import SwiftNet

LITE0_STATISTICS = {"mean_rgb": [127.0] * 3, "std_rgb": [128.0] * 3}


@pytest.fixture(scope="module")
def swiftnet_state():
    torch.manual_seed(0)
    return SwiftNet(11).state_dict()


def segmenter_of(path):
    return open_model(path, SEGMENTER).networks[SEGMENTER]


def same(module, state):
    own = module.state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[key], state[key]) for key in state)


def test_public_layouts_have_the_published_numbers_of_values():
    def values(net):
        return sum(value.numel() for value in net.state_dict().values())

    assert values(SwiftNet(19)) == 11_810_929
    assert values(UpstreamFlowNetS()) == 38_676_514 and len(UpstreamFlowNetS().state_dict()) == 46
    assert values(FlowNet2S()) == 38_676_506 and len(FlowNet2S().state_dict()) == 42


def test_own_format_keeps_values_and_metadata(tmp_path, swiftnet_state):
    path = tmp_path / "net.safetensors"
    classes = load_classes("camvid")
    files.save_weights(
        path, swiftnet_state, {"architecture": "swiftnet-r18", "classes": classes.to_dict(), "input_scale": 1.5}
    )
    assert same(segmenter_of(path), swiftnet_state)
    metadata = files.read_metadata(path)
    assert metadata["architecture"] == "swiftnet-r18" and metadata["input_scale"] == 1.5
    assert metadata["normalisation"]["mean_rgb"] == [73.15, 82.90, 72.30]
    assert files.read_classes(path) == classes
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "other").touch()
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_half_precision_is_read_into_single(tmp_path, swiftnet_state):
    path = tmp_path / "net.safetensors"
    halved = {key: value.half() if value.is_floating_point() else value for key, value in swiftnet_state.items()}
    files.save_weights(path, halved, {"architecture": "swiftnet-r18"})
    net = segmenter_of(path)
    assert {p.dtype for p in net.parameters()} == {torch.float32}
    assert torch.equal(net.logits.conv.weight, swiftnet_state["logits.conv.weight"].half().float())


def test_public_swnet_seq_converts_to_the_same_networks(tmp_path, upstream_weights):
    public = upstream_weights / "cityscapes-swnet_model_best.pth.tar"
    ours = tmp_path / "seq.safetensors"
    assert checkpoint.convert(public, ours, load_classes("cityscapes")) == "swnet-seq"
    for a, b in zip(checkpoint.load_swnet_seq(public), checkpoint.load_swnet_seq(ours), strict=True):
        assert same(a, b.state_dict())
    assert files.read_classes(ours) == load_classes("cityscapes")


def test_refinement_without_flow_or_edge(tmp_path):
    refine = GuidedRefine(5, edge=False)
    path = tmp_path / "refine.safetensors"
    tensors = {f"refine.{key}": value for key, value in refine.state_dict().items()}
    files.save_weights(path, tensors, {"architecture": "guided-refine"})
    flow, loaded = checkpoint.load_swnet_seq(path)
    assert flow is None and loaded.edge is False and loaded.num_classes == 5
    assert same(loaded, refine.state_dict())


def test_flow_light_alone(tmp_path):
    net = FlowLight()
    torch.save(net.state_dict(), tmp_path / "flow.pt")
    assert same(open_model(tmp_path / "flow.pt", FLOW).networks[FLOW], net.state_dict())


def test_imagenet_encoder_goes_where_it_belongs(tmp_path, swiftnet_state):
    net = SwiftNet(11)
    names = ("conv1.", "bn1.", "layer1.", "layer2.", "layer3.", "layer4.")
    encoder = {k[9:]: v for k, v in swiftnet_state.items() if k.startswith(tuple(f"backbone.{n}" for n in names))}
    given = {k: v + 1 for k, v in encoder.items() if not k.endswith("num_batches_tracked")}
    path = tmp_path / "resnet18.pth"
    torch.save(given | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}, path)
    decoder = net.backbone.spp.spp.spp_bn.conv.weight.clone()
    net.train()
    checkpoint.load_resnet18_encoder(path, net)
    own = net.state_dict()
    assert net.training
    assert all(torch.equal(own[f"backbone.{key}"], value) for key, value in given.items())
    assert torch.equal(net.backbone.spp.spp.spp_bn.conv.weight, decoder)
    del given["layer3.0.conv2.weight"]
    torch.save(given, path)
    with pytest.raises(CheckpointError, match=r"missing \['layer3.0.conv2.weight'\]"):
        checkpoint.load_resnet18_encoder(path, net)


@pytest.fixture
def lite0_file(tmp_path):
    """A file in the public layout, its numbers drawn at random."""
    torch.manual_seed(2)
    state = EfficientNetLite0().state_dict()
    for key, value in state.items():
        if key.endswith(("running_mean", "running_var")):
            value.uniform_(0.5, 1.5)
    torch.save(state, tmp_path / "efficientnet-lite0.pth")
    return tmp_path / "efficientnet-lite0.pth", state


def test_public_lite0_file_goes_into_the_encoder(tmp_path, lite0_file):
    path, given = lite0_file
    net = SwiftNet(3, "lite0", 24)
    decoder = net.backbone.spp.spp.spp_bn.conv.weight.clone()
    assert checkpoint.initialise(path, net, load_classes("camvid")) == (IMAGENET["lite0"].notice,)
    assert "Apache-2.0" in IMAGENET["lite0"].notice and "ML Illustrated" in IMAGENET["lite0"].notice
    encoder = net.backbone.encoder.state_dict()
    assert len(encoder) == 296 - 8  # the classifier's head stays behind
    assert all(torch.equal(value, given[key]) for key, value in encoder.items())
    assert torch.equal(net.backbone.spp.spp.spp_bn.conv.weight, decoder) and net.training
    del given["_blocks.7._bn1.running_var"]
    torch.save(given, path)
    with pytest.raises(CheckpointError, match=r"missing \['_blocks.7._bn1.running_var'\], unexpected none"):
        checkpoint.load_lite0_encoder(path, net)


def test_the_same_picture_gives_the_same_maps_in_classifier_and_segmenter(lite0_file):
    path, given = lite0_file
    net, classifier = SwiftNet(3, "lite0", 24), EfficientNetLite0()
    checkpoint.load_lite0_encoder(path, net)
    classifier.load_state_dict(given)
    x = torch.randn(1, 3, 70, 64)
    with torch.inference_mode():
        for a, b in zip(net.eval().backbone.encode(x), classifier.eval()(x), strict=True):
            assert torch.equal(a, b)


def test_an_encoder_begins_from_its_own_kind_of_file(tmp_path, lite0_file, swiftnet_state):
    path, _ = lite0_file
    with pytest.raises(CheckpointError, match="expected weights of resnet18-imagenet or swiftnet-r18, found efficient"):
        checkpoint.initialise(path, SwiftNet(3), load_classes("camvid"))
    with pytest.raises(CheckpointError, match="expected a SwiftNet on ResNet-18"):
        checkpoint.load_resnet18_encoder(path, SwiftNet(3, "lite0", 24))
    with pytest.raises(CheckpointError, match="expected a SwiftNet on EfficientNet-Lite0"):
        checkpoint.load_lite0_encoder(path, SwiftNet(3))
    other = tmp_path / "r18.safetensors"
    files.save_weights(other, swiftnet_state, {"architecture": "swiftnet-r18"})
    with pytest.raises(CheckpointError, match="efficientnet-lite0-imagenet or swiftnet-lite0, found swiftnet-r18"):
        checkpoint.initialise(other, SwiftNet(11, "lite0", 24), load_classes("camvid"))
    with pytest.raises(CheckpointError, match="found efficientnet-lite0-imagenet"):
        checkpoint.convert(path, tmp_path / "out.safetensors")


@pytest.mark.parametrize(("encoder", "width"), [("lite0", 24), ("lite0", 96), ("r18", 40)])
def test_encoder_and_width_are_told_by_the_file(tmp_path, encoder, width):
    net, classes = SwiftNet(11, encoder, width), load_classes("camvid")
    public = tmp_path / "net.pt"
    torch.save(net.state_dict(), public)
    path = tmp_path / "net.safetensors"
    assert checkpoint.convert(public, path, classes) == f"swiftnet-{encoder}"
    model = open_model(path)
    loaded = segmenter_of(path)
    assert loaded.encoder == encoder and same(loaded, net.state_dict())
    assert model.card.architecture == f"swiftnet-{encoder}" and model.card.output.stride == 4
    expected = ((127.0,) * 3, (128.0,) * 3) if encoder == "lite0" else ((73.15, 82.90, 72.30), (47.67, 48.49, 47.73))
    assert (model.card.input.mean, model.card.input.std) == expected and model.card.input.multiple == 32
    assert files.read_metadata(path)["normalisation"] == {"mean_rgb": [*expected[0]], "std_rgb": [*expected[1]]}
    again = SwiftNet(11, encoder, width)
    assert checkpoint.initialise(path, again, classes) == ()
    assert same(again, net.state_dict())


def test_a_decoder_of_another_width_begins_anew(tmp_path):
    wide, narrow, classes = SwiftNet(11, "lite0", 24), SwiftNet(11, "lite0", 16), load_classes("camvid")
    path = tmp_path / "net.safetensors"
    told = {"architecture": "swiftnet-lite0", "notices": ["By somebody, MIT."], "normalisation": LITE0_STATISTICS}
    files.save_weights(path, wide.state_dict(), told)
    own = {key: value.clone() for key, value in narrow.state_dict().items()}
    assert checkpoint.initialise(path, narrow, classes) == ("By somebody, MIT.",)
    for key, value in narrow.state_dict().items():
        assert torch.equal(value, wide.state_dict()[key] if key.startswith("backbone.encoder.") else own[key]), key
    assert {key.split(".")[1] for key in own} == {"encoder", "spp", "upsample", "norm", "conv"}


def test_notices_are_inherited(tmp_path):
    net = SwiftNet(11, "lite0", 24)
    path = tmp_path / "net.safetensors"
    files.save_weights(
        path,
        net.state_dict(),
        {"architecture": "swiftnet-lite0", "notices": ["By somebody, MIT."], "normalisation": LITE0_STATISTICS},
    )
    assert checkpoint.initialise(path, net, load_classes("camvid")) == ("By somebody, MIT.",)


@pytest.mark.parametrize("encoder", ["r18", "lite0"])
def test_a_training_does_not_begin_from_a_network_with_other_statistics(tmp_path, encoder):
    net, classes, path = SwiftNet(11, encoder, 24), load_classes("camvid"), tmp_path / "net.safetensors"
    before = {key: value.clone() for key, value in net.state_dict().items()}
    metadata = {"architecture": f"swiftnet-{encoder}", "normalisation": {"mean_rgb": [1, 2, 3], "std_rgb": [4, 5, 6]}}
    files.save_weights(path, SwiftNet(11, encoder, 24).state_dict(), metadata)
    seen = r"\(127.0, 127.0, 127.0\)" if encoder == "lite0" else r"\(73.15, 82.9, 72.3\)"
    message = rf"net.safetensors: expected .* mean {seen} .*, found one for mean \(1, 2, 3\) and deviation \(4, 5, 6\)"
    with pytest.raises(CheckpointError, match=message):
        checkpoint.initialise(path, net, classes)
    assert same(net, before)


def test_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match=r"none\.pt: no such weight file"):
        checkpoint.load_swnet_seq(tmp_path / "none.pt")


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 5000])
def test_truncated_file(tmp_path, swiftnet_state, suffix, keep):
    path = tmp_path / f"net{suffix}"
    if suffix == ".pt":
        torch.save(swiftnet_state, path)
    else:
        files.save_weights(path, swiftnet_state, {"architecture": "swiftnet-r18"})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"net\.\w+: expected a .* file; it is truncated or of another kind"):
        segmenter_of(path)


def test_file_of_something_else(tmp_path):
    path = tmp_path / "text.pt"
    path.write_text("not weights at all\n")
    with pytest.raises(CheckpointError, match="another kind"):
        segmenter_of(path)
    torch.save([1, 2], path)
    with pytest.raises(CheckpointError, match="expected a dictionary of tensors, found list"):
        segmenter_of(path)
    torch.save({"state_dict": {"a": 1}}, path)
    with pytest.raises(CheckpointError, match="found something else"):
        segmenter_of(path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.pt"
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (type(marker).touch, (marker,))

    torch.save({"logits.conv.bias": Evil()}, path)
    with pytest.raises(CheckpointError):
        segmenter_of(path)
    assert not marker.exists()


def test_weights_of_another_network(tmp_path):
    path = tmp_path / "flow.pt"
    torch.save(FlowLight().state_dict(), path)
    with pytest.raises(
        CheckpointError, match="flow.pt: expected weights of swiftnet-lite0 or swiftnet-r18, found light"
    ):
        segmenter_of(path)
    with pytest.raises(CheckpointError, match="expected weights of swnet-seq or guided-refine, found light"):
        checkpoint.load_swnet_seq(path)
    torch.save({"a.weight": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="found an unknown network .*a.weight"):
        checkpoint.load_swnet_seq(path)


def test_missing_unexpected_misshapen_and_not_finite(tmp_path, swiftnet_state):
    path = tmp_path / "net.pt"

    def refused(state, message):
        torch.save(state, path)
        with pytest.raises(CheckpointError, match=message):
            segmenter_of(path)

    state = dict(swiftnet_state)
    del state["backbone.conv1.weight"]
    refused(state | {"extra": torch.zeros(1)}, r"missing \['backbone.conv1.weight'\], unexpected \['extra'\]")
    refused(
        swiftnet_state | {"backbone.bn1.bias": torch.zeros(3)},
        r"backbone.bn1.bias: expected shape \(64,\), found \(3,\)",
    )
    bad = swiftnet_state["backbone.layer1.0.conv1.weight"].clone()
    bad[0, 0, 0, 0] = float("nan")
    refused(swiftnet_state | {"backbone.layer1.0.conv1.weight": bad}, "layer1.0.conv1.weight: expected finite values")


def test_foreign_safetensors(tmp_path, swiftnet_state):
    path = tmp_path / "net.safetensors"
    save_file(swiftnet_state, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match="expected metadata with format 'vidseg-1', found 'pt'"):
        files.read_metadata(path)
    save_file(swiftnet_state, path, {"format": "vidseg-1", "classes": "{"})
    with pytest.raises(CheckpointError, match="not JSON"):
        files.read_metadata(path)


def test_class_count_is_checked_on_conversion(tmp_path, swiftnet_state):
    torch.save(swiftnet_state, tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="expected 19 classes as in class table 'cityscapes', found 11"):
        checkpoint.convert(tmp_path / "net.pt", tmp_path / "out.safetensors", load_classes("cityscapes"))
    assert not (tmp_path / "out.safetensors").exists()


def test_metadata_is_plain_json(tmp_path, swiftnet_state):
    path = tmp_path / "net.safetensors"
    files.save_weights(path, swiftnet_state, {"architecture": "swiftnet-r18", "training": {"epochs": 3}})
    with files.safe_open(path, framework="pt") as file:
        stored = file.metadata()
    assert json.loads(stored["training"]) == {"epochs": 3}
