"""Networks of the families that others publish, against the family's own processor and post-processing.

They are small, of random weights with a fixed seed; nothing is downloaded. A last layer is fitted by ridge regression
on street pictures, so that labels look like a trained network's and not like noise, whose margins are near nothing.
What a test needs of other libraries `make test-networks` installs.
"""

import re
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import library as torch_operators
from torch import nn

from vidseg_core.arrays import pixels_last
from vidseg_core.backends import probe
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.network_picture import picture_for, place
from vidseg_core.frame import Frame
from vidseg_core.models.card import InputCard
from vidseg_core.models.open import open_model
from vidseg_core.street import Street, StreetConfig

pytestmark = pytest.mark.long
LARGE = 360, 640
SIZE = 256, 320
NUM_CLASSES = 11
NAMES = tuple(f"kind {i}" for i in range(NUM_CLASSES))
NEEDED = "needs what `make test-networks` installs"
YOLO_SIZE = 192, 320
SIDES = {"hidden_sizes": [16, 24, 32, 48], "depths": [1, 1, 1, 1]}


def street(count: int, size: tuple[int, int] = SIZE) -> list:
    """Frames of a street with their labels, some frames apart."""
    made = Street(StreetConfig(seed=0, width=size[1], height=size[0], rate_hz=10.0, num_frames=40))
    return [made.render(10 * i) for i in range(count)]


def spread(network: nn.Module) -> None:
    """Give convolutions weights that keep the size of what they are given."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)


def settle(network: nn.Module, pictures: torch.Tensor) -> None:
    """Give batch norm the statistics of pictures."""
    norms = [one for one in network.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)]
    network.eval()
    for norm in norms:
        norm.train()
        norm.momentum = None
        norm.reset_running_stats()
    with torch.no_grad():
        network(pictures)
    network.eval()


def fit(network: nn.Module, layer: nn.Conv2d, pictures: torch.Tensor, labels: list[np.ndarray]) -> None:
    """Fit a last layer to labels by ridge regression; of a larger one than 1 x 1 the middle."""
    seen = []
    hook = layer.register_forward_hook(lambda _module, given, _result: seen.append(given[0]))
    with torch.no_grad():
        network(pictures)
    hook.remove()
    features = seen[0]  # B x F x h x w
    small = [torch.from_numpy(one.astype(np.float32))[None, None] for one in labels]
    ids = torch.cat([nn.functional.interpolate(one, features.shape[2:], mode="nearest") for one in small]).long()[:, 0]
    x = features.permute(0, 2, 3, 1).flatten(0, 2).double()
    x = torch.cat((x, torch.ones(len(x), 1)), 1)
    known = ids.flatten() < NUM_CLASSES
    y = nn.functional.one_hot(ids.flatten()[known], NUM_CLASSES).double()
    x = x[known]
    ridge = 3e-2 * torch.diag(x.pow(2).sum(0))
    solved = torch.linalg.solve(x.T @ x + ridge, x.T @ y) * 10
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[:, :, layer.kernel_size[0] // 2, layer.kernel_size[1] // 2] = solved[:-1].T.float()
        layer.bias.copy_(solved[-1])


def part_queries(network: nn.Module, pictures: torch.Tensor) -> None:
    """Make queries of random weights differ in their classes and masks, as a trained network's do."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Linear | nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
            if isinstance(module, nn.Embedding):
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * 2)
        modules = dict(network.named_modules())
        [predictor] = [one for name, one in modules.items() if name.endswith("class_predictor")]
        heads = [one for name, one in modules.items() if "mask_embedder" in name or "mask_head" in name]
        last = [one for one in heads if isinstance(one, nn.Linear)][-1]
        found = network(pictures)
        classes, masks = found.class_queries_logits, found.masks_queries_logits
        middle, spread = classes.mean((0, 1)), classes.std((0, 1)).mean()
        predictor.weight.mul_(3 / spread)
        predictor.bias.copy_((predictor.bias - middle) * 3 / spread)
        last.weight.mul_(5 / masks.std((2, 3)).mean())
        last.bias.zero_()


def centre(layer: nn.Conv2d, network: nn.Module, pictures: torch.Tensor, output: str = "logits") -> None:
    """Give all classes the same mean score on pictures that were not fitted to, so that several of them are seen."""
    with torch.no_grad():
        layer.bias.sub_(network(pictures)[output].mean((0, 2, 3)))


def common() -> dict:
    return {"id2label": dict(enumerate(NAMES)), "label2id": {name: i for i, name in enumerate(NAMES)}}


def segformer(t) -> tuple:
    config = t.SegformerConfig(
        hidden_sizes=[16, 32, 64, 64], depths=[1, 1, 1, 1], decoder_hidden_size=64, num_attention_heads=[1, 2, 4, 4],
        **common(),
    )  # fmt: skip
    network = t.SegformerForSemanticSegmentation(config)
    return network, t.SegformerImageProcessor(size={"height": 160, "width": 160}), network.decode_head.classifier


def mobilenet(t) -> tuple:
    config = t.MobileNetV2Config(depth_multiplier=0.35, output_stride=16, **common())
    network = t.MobileNetV2ForSemanticSegmentation(config)
    processor = t.MobileNetV2ImageProcessor(size={"shortest_edge": 193}, do_center_crop=False)
    return network, processor, network.segmentation_head.classifier.convolution


def mobilevit(t) -> tuple:
    config = t.MobileViTConfig(
        image_size=160, hidden_sizes=[32, 48, 64], neck_hidden_sizes=[8, 16, 24, 32, 40, 48, 160], output_stride=16,
        aspp_out_channels=32, atrous_rates=[2, 4, 6], **common(),
    )  # fmt: skip
    network = t.MobileViTForSemanticSegmentation(config)
    processor = t.MobileViTImageProcessor(size={"shortest_edge": 160}, do_center_crop=False)
    return network, processor, network.segmentation_head.classifier.convolution


def mobilevitv2(t) -> tuple:
    config = t.MobileViTV2Config(
        image_size=160, width_multiplier=0.5, output_stride=16, aspp_out_channels=32, atrous_rates=[2, 4, 6], **common()
    )
    network = t.MobileViTV2ForSemanticSegmentation(config)
    processor = t.MobileViTImageProcessor(size={"shortest_edge": 160}, do_center_crop=False)
    return network, processor, network.segmentation_head.classifier.convolution


def data2vec(t) -> tuple:
    config = t.Data2VecVisionConfig(
        image_size=160, hidden_size=48, num_hidden_layers=4, num_attention_heads=4, intermediate_size=96,
        use_relative_position_bias=True, use_absolute_position_embeddings=False, use_mask_token=False,
        out_indices=[1, 2, 3, 4], **common(),
    )  # fmt: skip
    network = t.Data2VecVisionForSemanticSegmentation(config)
    return network, t.BeitImageProcessor(size={"height": 160, "width": 160}), network.decode_head.classifier


def beit(t) -> tuple:
    config = t.BeitConfig(
        image_size=160, hidden_size=48, num_hidden_layers=4, num_attention_heads=4, intermediate_size=96,
        use_relative_position_bias=True, use_absolute_position_embeddings=False, use_mask_token=False,
        out_indices=[1, 2, 3, 4], **common(),
    )  # fmt: skip
    network = t.BeitForSemanticSegmentation(config)
    return network, t.BeitImageProcessor(size={"height": 160, "width": 160}), network.decode_head.classifier


def upernet(t) -> tuple:
    backbone = t.ConvNextConfig(**SIDES, out_features=["stage1", "stage2", "stage3", "stage4"])
    config = t.UperNetConfig(
        backbone_config=backbone, hidden_size=32, auxiliary_in_channels=32, auxiliary_channels=16, **common()
    )
    network = t.UperNetForSemanticSegmentation(config)
    return network, t.SegformerImageProcessor(size={"height": 160, "width": 224}), network.decode_head.classifier


def dpt(t) -> tuple:
    config = t.DPTConfig(
        image_size=160, hidden_size=48, num_hidden_layers=4, num_attention_heads=4, intermediate_size=96,
        backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[16, 24, 32, 32], fusion_hidden_size=32, **common(),
    )  # fmt: skip
    network = t.DPTForSemanticSegmentation(config)
    return network, t.DPTImageProcessor(size={"height": 160, "width": 160}), network.head.head[4]


def eomt(t) -> tuple:
    """It sees squares; its processor cuts pictures into such, which overlap."""
    config = t.EomtConfig(
        hidden_size=48, num_hidden_layers=4, num_attention_heads=4, num_blocks=2, image_size=160, patch_size=16,
        num_queries=20, **common(),
    )  # fmt: skip
    size = {"shortest_edge": 160, "longest_edge": None}
    processor = t.EomtImageProcessor(size=size, do_split_image=True, do_pad=False)
    return t.EomtForUniversalSegmentation(config), processor, None


def _swin(t) -> object:
    return t.SwinConfig(
        embed_dim=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 4], window_size=4, image_size=160,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip


def maskformer(t) -> tuple:
    decoder = t.DetrConfig(
        d_model=32, decoder_layers=2, encoder_layers=1, decoder_ffn_dim=64, decoder_attention_heads=2,
        encoder_attention_heads=2, num_queries=20, num_labels=NUM_CLASSES,
    )  # fmt: skip
    config = t.MaskFormerConfig(
        backbone_config=_swin(t), decoder_config=decoder, mask_feature_size=32, fpn_feature_size=32, **common()
    )
    network = t.MaskFormerForInstanceSegmentation(config)
    return network, t.MaskFormerImageProcessor(size={"shortest_edge": 160, "longest_edge": 512}, size_divisor=32), None


def mask2former(t) -> tuple:
    config = t.Mask2FormerConfig(
        backbone_config=_swin(t), feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=64,
        encoder_layers=2, decoder_layers=3, num_attention_heads=4, dim_feedforward=64, num_queries=20, **common(),
    )  # fmt: skip
    network = t.Mask2FormerForUniversalSegmentation(config)
    return network, t.Mask2FormerImageProcessor(size={"shortest_edge": 160, "longest_edge": 512}), None


FAMILIES: tuple[Callable, ...] = (
    segformer, mobilenet, mobilevit, mobilevitv2, beit, data2vec, dpt, upernet, eomt, maskformer, mask2former,
)  # fmt: skip
HUGGING_FACE = {one.__name__: one for one in FAMILIES}


def save(name: str, path: Path):
    """Make a Hugging Face directory; return the network and its image processor."""
    transformers = pytest.importorskip("transformers", reason="needs the extra `hf`")
    torch.manual_seed(0)
    network, processor, last = HUGGING_FACE[name](transformers)
    frames = street(2)
    pictures = processor([frame.image for frame in frames], return_tensors="pt")["pixel_values"]
    if name == "mobilenet":
        spread(network)
    settle(network, pictures)
    if last is None:
        part_queries(network, pictures)
    else:
        fit(network, last, pictures, [frame.labels for frame in frames])
        if name == "mobilenet":  # whose features are too many for two small pictures
            other = processor(street(3, LARGE)[2].image, return_tensors="pt")["pixel_values"]
            centre(last, network, other)
    network.save_pretrained(path)
    processor.save_pretrained(path)
    return network, processor


def reference(network, processor, image: np.ndarray, **how) -> np.ndarray:
    """Labels of an image by a family's own processor and post-processing."""
    given = processor(image, return_tensors="pt", **how)
    with torch.inference_mode():
        found = network(**{name: given[name] for name in ("pixel_values", "patch_offsets") if name in given})
    return processor.post_process_semantic_segmentation(found, [image.shape[:2]])[0].numpy()


def labels_of(path: Path, image: np.ndarray, **config) -> np.ndarray:
    config = {"interval": 0, "fusion": False, "runtime": "eager"} | config
    with build_engine(EngineConfig(weights=str(path), **config)) as engine:
        return engine.stream().step(Frame(image, 0)).labels


@pytest.fixture(scope="session", autouse=True)
def operators():
    """Declare torchvision's operators where its build is for CUDA and PyTorch's is not: they are never called."""
    schemas = torch_operators.Library("torchvision", "FRAGMENT")
    while find_spec("torchvision"):
        try:
            import torchvision  # noqa: F401
        except RuntimeError as error:
            missing = re.search(r"operator torchvision::(\w+) does not exist", str(error))
            if missing is None:
                raise
            schemas.define(f"{missing[1]}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
        else:
            break
    yield schemas


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Trials are made in this process, which is faster, and kept for one test."""
    monkeypatch.setattr(probe, "cache_directory", lambda: tmp_path / "cache" / "openvino")
    monkeypatch.setattr(probe, "in_a_process_of_its_own", lambda asked: "\n".join(probe.trials(asked)))


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_labels_are_those_of_the_familys_own_pipeline(tmp_path, name):
    network, processor = save(name, tmp_path / name)
    large = street(3, LARGE)[2].image
    expected = reference(network, processor, large)
    assert len(np.unique(expected)) >= 3, "the comparison says nothing"
    assert (labels_of(tmp_path / name, large) == expected).mean() >= 0.995, "by resizing of our own"
    image = street(3)[2].image
    if name in ("data2vec", "dpt", "eomt"):  # of one size only
        image = np.ascontiguousarray(large[:160, :160])
    expected = reference(network, processor, image, do_resize=False)
    assert (labels_of(tmp_path / name, image, input_scale=1.0) == expected).mean() >= 0.999, "by the same pixels"
    card = open_model(tmp_path / name).card
    assert card.classes.names == NAMES and card.output.kind == ("queries" if "former" in name[4:] else "logits")


# What the libraries do not write into their files: the statistics of their weights, and how their presets resize.
CARD = (
    f"classes: [{', '.join(NAMES)}]\n"
    "input: {mean: [123.675, 116.28, 103.53], std: [58.395, 57.12, 57.375], resize: bilinear, multiple: MULTIPLE}\n"
    "output: {name: out}\n"
)
EDGE = 160


def deeplab() -> tuple:
    """Two outputs of one shape; the second is for training."""
    made = pytest.importorskip("torchvision.models.segmentation", reason=NEEDED)
    network = made.deeplabv3_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=NUM_CLASSES, aux_loss=True
    )
    return network, network.classifier[4], ("out", "aux")


def lraspp() -> tuple:
    made = pytest.importorskip("torchvision.models.segmentation", reason=NEEDED)
    network = made.lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=NUM_CLASSES)
    return network, network.classifier.high_classifier, ("out",)


def unet() -> tuple:
    made = pytest.importorskip("segmentation_models_pytorch", reason=NEEDED)
    network = made.Unet("resnet18", encoder_weights=None, classes=NUM_CLASSES)
    return network, network.segmentation_head[0], ("out",)


def preset(size: int | tuple[int, int] | None) -> Callable[[np.ndarray], torch.Tensor]:
    """Make pictures as torchvision's weights for segmentation want them, whose statistics are those of smp's, too.

    Args:
        size: of the shorter side, or (h, w); None for the picture's own.
    """
    from PIL import Image
    from torchvision.transforms._presets import SemanticSegmentation

    made = SemanticSegmentation(resize_size=size if isinstance(size, int) else None)
    by = (lambda one: one.resize(size[::-1], Image.Resampling.BILINEAR)) if isinstance(size, tuple) else lambda one: one
    return lambda image: made(by(Image.fromarray(image)))[None]


def full_size(scores: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return nn.functional.interpolate(torch.from_numpy(scores), size, mode="bilinear").argmax(1)[0].numpy()


@pytest.mark.parametrize(
    ("make", "multiple", "chosen", "tried"),
    [
        (deeplab, 1, f"input: {{size_rule: shortest_edge, shortest_edge: {EDGE}, ", EDGE),
        (lraspp, 1, f"input: {{size_rule: shortest_edge, shortest_edge: {EDGE}, ", EDGE),
        # It takes multiples of 32, and is given the picture's size as far as it can be.
        (unet, 32, "input: {", (352, 640)),
    ],
    ids=["deeplab", "lraspp", "unet"],
)
def test_labels_of_an_exported_network_are_those_of_its_own_pipeline(tmp_path, make, multiple, chosen, tried):
    """Exported as its library says, executed by ONNX Runtime either way."""
    ort = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")
    pytest.importorskip("onnxscript", reason=NEEDED)
    torch.manual_seed(0)
    network, last, outputs = make()
    frames = street(2)
    pictures = torch.cat([preset((160, 192))(frame.image) for frame in frames])
    settle(network, pictures)
    fit(network, last, pictures, [frame.labels for frame in frames])
    large = street(3, LARGE)[2].image
    if make is deeplab:  # whose features are too many for two small pictures
        centre(last, network, preset(tried)(large), "out")
    path, free = tmp_path / "net.onnx", torch.export.Dim.DYNAMIC
    torch.onnx.export(
        network, (pictures[:1],), path, output_names=outputs, dynamic_shapes=({2: free, 3: free},), verbose=False
    )
    card = tmp_path / "net.card.yaml"
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def reference(image: np.ndarray, size: int | tuple[int, int] | None) -> np.ndarray:
        given = {session.get_inputs()[0].name: preset(size)(image).numpy()}
        return full_size(session.run(["out"], given)[0], image.shape[:2])

    card.write_text(CARD.replace("input: {", chosen).replace("MULTIPLE", str(multiple)))
    expected = reference(large, tried)
    assert len(np.unique(expected)) >= 3, "the comparison says nothing"
    assert (labels_of(path, large, runtime="onnxruntime") == expected).mean() >= 0.995, "by resizing of our own"
    card.write_text(CARD.replace("MULTIPLE", str(multiple)))
    image = street(3)[2].image
    agreement = (labels_of(path, image, runtime="onnxruntime") == reference(image, None)).mean()
    assert agreement >= 0.999, "by the same pixels"


@pytest.fixture(scope="module")
def yolo(tmp_path_factory):
    """A network of Ultralytics, for pictures of 192 x 320: its own object, and its ONNX file."""
    folder = tmp_path_factory.mktemp("yolo")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"AUTOINSTALL": "false", "OFFLINE": "true", "CONFIG_DIR": str(folder)}.items():
            patch.setenv(f"YOLO_{name}", value)
        patch.chdir(folder)
        made = pytest.importorskip("ultralytics", reason=NEEDED)
        tasks = pytest.importorskip("ultralytics.nn.tasks", reason=NEEDED)
        given = {**tasks.yaml_model_load("yolo26n-sem.yaml"), "nc": NUM_CLASSES}
        Path("yolo26n-sem.yaml").write_text(yaml.safe_dump({k: v for k, v in given.items() if k != "yaml_file"}))
        torch.manual_seed(0)
        network = made.YOLO("yolo26n-sem.yaml", task="semantic")
        frames = street(2)
        pictures = torch.stack([torch.from_numpy(one.image) for one in frames]).permute(0, 3, 1, 2).float() / 255
        settle(network.model, pictures)
        fit(network.model, network.model.model[-1].classifier[1], pictures, [one.labels for one in frames])
        network.model.names = dict(enumerate(NAMES))
        file = network.export(format="onnx", imgsz=YOLO_SIZE, simplify=False)
        yield network, made.YOLO(file, task="semantic"), folder / file


def predicted(network, image: np.ndarray) -> np.ndarray:
    """Labels by Ultralytics' predictor, which takes pictures as OpenCV reads them."""
    [found] = network.predict(image[..., ::-1], imgsz=YOLO_SIZE, rect=False, verbose=False)
    return np.asarray(found.semantic_mask.data).squeeze()


def test_labels_of_an_ultralytics_network_are_its_predictors(yolo):
    """The ids of its file are ours at its size. Else its predictor's of the network, which resizes scores as we do:

    that of the file enlarges ids by nearest neighbours, and agrees with neither to that degree.
    """
    network, exported, path = yolo
    image = street(3, (2 * YOLO_SIZE[0], 2 * YOLO_SIZE[1]))[2].image
    small = np.ascontiguousarray(image[::2, ::2])
    expected = predicted(exported, small)
    assert len(np.unique(expected)) >= 3, "the comparison says nothing"
    assert (labels_of(path, small, runtime="onnxruntime") == expected).mean() >= 0.999, "by the same pixels"
    assert open_model(path).card.classes.names == NAMES
    for size in (image.shape[:2], LARGE, (361, 643), (500, 400)):  # with borders of several widths, and none
        image = street(3, size)[2].image
        agreement = (labels_of(path, image, runtime="onnxruntime") == predicted(network, image)).mean()
        assert agreement >= 0.995, f"letterboxed from {size}"


@pytest.mark.parametrize("size", [(384, 640), (360, 640), (361, 643), (500, 400)])
def test_letterboxed_pictures_are_those_of_ultralytics(size):
    augment = pytest.importorskip("ultralytics.data.augment", reason=NEEDED)
    card = InputCard(
        mean=(0.0,) * 3, std=(1.0,) * 3, size_rule="fixed", size=YOLO_SIZE, fit="letterbox", resize="linear"
    )
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = augment.LetterBox(YOLO_SIZE)(image=image)
    found = pixels_last(picture_for(image, card, place(size, card, None)))
    assert (found == expected).all()


@pytest.mark.parametrize("name", ["segformer", "beit", "mask2former"])
def test_openvino_runs_it(tmp_path, name):
    """Perhaps in bfloat16: what that changes is reported, not judged."""
    save(name, tmp_path / name)
    image = street(3)[2].image
    agreement = (labels_of(tmp_path / name, image, runtime="openvino") == labels_of(tmp_path / name, image)).mean()
    print(f"{name}: {agreement:.4%}")
    assert agreement > 0.8
