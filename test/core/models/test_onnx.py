"""Networks of others in ONNX files: what is known, what has to be said, and what is refused."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="needs the extra `onnx`")
ort = pytest.importorskip("onnxruntime", reason="needs the extra `onnx`")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from vidseg_core.backends import probe  # noqa: E402
from vidseg_core.backends.onnx_runtime import OnnxRuntime  # noqa: E402
from vidseg_core.engine.build import build_engine  # noqa: E402
from vidseg_core.engine.config import EngineConfig  # noqa: E402
from vidseg_core.errors import CheckpointError, ConfigError  # noqa: E402
from vidseg_core.evaluation.bench.against_plain import CASES, run_case  # noqa: E402
from vidseg_core.frame import Frame  # noqa: E402
from vidseg_core.models.files import read_file  # noqa: E402
from vidseg_core.models.onnx import study  # noqa: E402
from vidseg_core.models.open import open_model  # noqa: E402

IN_A_PROCESS = probe.in_a_process_of_its_own


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Trials are made in this process, which is faster, and kept for one test."""
    monkeypatch.setattr(probe, "cache_directory", lambda: tmp_path / "cache" / "openvino")
    monkeypatch.setattr(probe, "in_a_process_of_its_own", lambda asked: "\n".join(probe.trials(asked)))


@pytest.fixture
def processes(monkeypatch, cache):
    """Trials are made in processes of their own, as always."""
    monkeypatch.setattr(probe, "in_a_process_of_its_own", IN_A_PROCESS)


NAMES = ["road", "car", "sky", "tree", "pole"]
STATISTICS = "input: {mean: [120.0, 110.0, 100.0], std: [60.0, 50.0, 40.0]}\n"
CARD = f"classes: {NAMES}\n{STATISTICS}"
MEAN, STD = np.array([120.0, 110.0, 100.0], np.float32), np.array([60.0, 50.0, 40.0], np.float32)


def network(path, tail=(), *, shape=(1, 3, "h", "w"), outputs=None, kind=TensorProto.FLOAT, classes=5, stride=4,
            before=(), metadata=None, weights=None, opset=18, extra=(), external=None):  # fmt: skip
    """One convolution: class c of a pixel is a weighted sum of its colours. `tail` makes `y` of the scores."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(classes, 3, stride, stride)).astype(np.float32) if weights is None else weights
    bias = rng.normal(size=classes).astype(np.float32)
    nodes = [
        *before,
        helper.make_node("Conv", ["p" if before else "x", "kernel", "bias"], ["scores"], strides=[stride] * 2),
    ]
    nodes += tail
    if outputs is None:
        outputs = [("y" if tail else "scores", TensorProto.FLOAT, [None] * 4)]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, list(shape)), *extra],
        [helper.make_tensor_value_info(name, type_, dims) for name, type_, dims in outputs],
        [numpy_helper.from_array(kernel, "kernel"), numpy_helper.from_array(bias, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    for key, value in (metadata or {}).items():
        helper.set_model_props(model, {**{p.key: p.value for p in model.metadata_props}, key: value})
    if external:
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
    else:
        onnx.save(model, path)
    return path


def with_card(path, text=CARD):
    path.with_suffix(".card.yaml").write_text(text)
    return path


def picture(size=(96, 128), seed=0):
    coarse = np.random.default_rng(seed).integers(0, 256, (size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    return np.kron(coarse, np.ones((8, 8, 1), np.uint8))


def run(path, image, output):
    x = ((image - MEAN) / STD).astype(np.float32).transpose(2, 0, 1)[None]
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run([output], {"x": x})[0]


def upsampled(scores, size):
    """As `interpolate(..., align_corners=False)`, by PyTorch."""
    import torch

    full = torch.nn.functional.interpolate(torch.from_numpy(scores), size, mode="bilinear", align_corners=False)
    return full.argmax(1)[0].numpy()


def labels_of(path, image, **config):
    config = {"interval": 0, "fusion": False, "runtime": "onnxruntime"} | config
    with build_engine(EngineConfig(weights=str(path), **config)) as engine:
        return engine.stream().step(Frame(image, 0)).labels


RESIZE = [
    helper.make_node(
        "Resize", ["scores", "", "by"], ["full"], mode="linear", coordinate_transformation_mode="half_pixel"
    ),
    helper.make_node("ArgMax", ["full"], ["ids"], axis=1, keepdims=0),
    helper.make_node("Cast", ["ids"], ["y"], to=TensorProto.UINT8),
]
ZERO = helper.make_node("Constant", [], ["zero"], value=numpy_helper.from_array(np.array([0], np.int64)))
BY = helper.make_node("Constant", [], ["by"], value=numpy_helper.from_array(np.array([1, 1, 4, 4], np.float32)))


def test_logits_are_those_of_the_file_upsampled_by_half_pixels(tmp_path):
    path = with_card(network(tmp_path / "net.onnx"))
    found = study(path)
    assert found.value("output.kind") == "logits" and found.value("output.stride") == 4
    assert found.facts["output.corners"] == ("half_pixel", "assumed: what most families are upsampled by")
    assert set(found.network.backends) == {"onnxruntime", "openvino"} and found.network.num_classes == 5
    image = picture()
    expected = upsampled(run(path, image, "scores"), image.shape[:2])
    assert (labels_of(path, image) == expected).mean() > 0.999
    assert (labels_of(path, image, runtime="openvino") == expected).mean() > 0.97  # perhaps in bfloat16


def test_video_of_a_network_of_others(tmp_path, processes):
    """Propagated frames of a picture that stands still have its labels."""
    path, image = with_card(network(tmp_path / "net.onnx")), picture()
    with build_engine(EngineConfig(weights=str(path), interval=2, runtime="onnxruntime")) as engine:
        stream = engine.stream()
        results = [stream.step(Frame(image, i * 33_000_000)) for i in range(4)]
    assert [result.is_key for result in results] == [True, False, False, True]
    assert engine.classes.names == tuple(NAMES)
    for result in results[1:]:
        assert (result.labels == results[0].labels).mean() > 0.9


def test_asynchronous_key_frames_give_the_same(tmp_path):
    path, image = with_card(network(tmp_path / "net.onnx")), picture()
    expected = labels_of(path, image)
    with build_engine(EngineConfig(weights=str(path), runtime="onnxruntime", key_frames="async")) as engine:
        assert (engine.stream().step(Frame(image, 0)).labels == expected).all()


def test_an_argmax_at_the_end_is_cut_off_and_the_ids_stay(tmp_path):
    outputs = [("y", TensorProto.UINT8, [1, None, None])]
    path = with_card(network(tmp_path / "ids.onnx", [BY, *RESIZE], outputs=outputs))
    found = study(path)
    assert found.facts["output.kind"] == ("logits", "taken in front of the argmax at its end")
    assert found.facts["output.corners"] == ("half_pixel", "by the upsampling at its end")
    assert found.network.output == "scores" and found.value("output.stride") == 4
    image = picture()
    assert (labels_of(path, image) == run(path, image, "y")[0]).mean() > 0.999


FIRST = helper.make_node("ArgMax", ["full"], ["y"], axis=-3, keepdims=1)
LAST = [
    helper.make_node("Transpose", ["full"], ["turned"], perm=[0, 2, 3, 1]),
    helper.make_node("Softmax", ["turned"], ["shares"], axis=-1),
    helper.make_node("ArgMax", ["shares"], ["y"], axis=3, keepdims=0),
]
SOFTMAX = [
    helper.make_node("Softmax", ["full"], ["shares"], axis=1),
    helper.make_node("ArgMax", ["shares"], ["ids"], axis=1, keepdims=0),
    helper.make_node("Cast", ["ids"], ["y"], to=TensorProto.INT32),
]
FLOATS = [RESIZE[1], helper.make_node("Cast", ["ids"], ["y"], to=TensorProto.FLOAT)]
BARE = [RESIZE[1], ZERO, helper.make_node("Squeeze", ["ids", "zero"], ["y"])]


@pytest.mark.parametrize(
    ("tail", "kind", "dims"),
    [
        ([FIRST], TensorProto.INT64, [1, 1, None, None]),
        (LAST, TensorProto.INT64, [1, None, None]),
        (SOFTMAX, TensorProto.INT32, [1, None, None]),
        (FLOATS, TensorProto.FLOAT, [1, None, None]),
        (BARE, TensorProto.INT64, [None, None]),
    ],
    ids=["axis from behind", "channels last", "softmax", "as floats", "without batch"],
)
def test_ids_are_cut_off_however_they_are_written(tmp_path, tail, kind, dims):
    path = with_card(network(tmp_path / "ids.onnx", [BY, RESIZE[0], *tail], outputs=[("y", kind, dims)]))
    assert study(path).network.output == "scores"
    image = picture((64, 96))
    assert (labels_of(path, image) == run(path, image, "y").reshape(64, 96)).mean() > 0.999


def test_an_argmax_over_something_else_is_not_cut(tmp_path):
    """Its largest channel is not that of the scores."""
    tail = [BY, RESIZE[0], helper.make_node("Neg", ["full"], ["other"]),
            helper.make_node("ArgMax", ["other"], ["y"], axis=1, keepdims=0)]  # fmt: skip
    path = with_card(network(tmp_path / "ids.onnx", tail, outputs=[("y", TensorProto.INT64, [1, None, None])]))
    assert study(path).network.output == "other"


def test_a_mask_of_truth_values_is_two_classes(tmp_path):
    tail = [helper.make_node("Constant", [], ["none"], value=numpy_helper.from_array(np.float32(0))),
            helper.make_node("Greater", ["scores", "none"], ["y"])]  # fmt: skip
    path = network(tmp_path / "mask.onnx", tail, classes=1, stride=1,
                   outputs=[("y", TensorProto.BOOL, [1, 1, None, None])])  # fmt: skip
    with_card(path, f"classes: [object]\n{STATISTICS}")
    assert study(path).facts["output.kind"] == ("labels", "by its type, bool")
    image = picture((64, 96))
    expected = run(path, image, "y")[0, 0]
    assert 0.02 < expected.mean() < 0.98
    assert (labels_of(path, image) == expected).mean() > 0.97, "by votes"


def test_ids_that_cannot_be_cut_are_votes(tmp_path):
    tail = [
        BY,
        helper.make_node(
            "Resize", ["scores", "", "by"], ["full"], mode="nearest", nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        ),
        helper.make_node("ArgMax", ["full"], ["ids"], axis=1, keepdims=0),
        helper.make_node("Abs", ["ids"], ["y"]),
    ]  # fmt: skip
    path = with_card(network(tmp_path / "ids.onnx", tail, outputs=[("y", TensorProto.INT64, [1, None, None])]))
    assert study(path).facts["output.kind"] == ("labels", "by its type, int64")
    image = picture()
    assert (labels_of(path, image) == run(path, image, "y")[0]).mean() > 0.9


@pytest.mark.parametrize("threshold", [0.5, 0.9])
def test_one_channel_of_probabilities_is_two_classes(tmp_path, threshold):
    path = network(tmp_path / "one.onnx", [helper.make_node("Sigmoid", ["scores"], ["y"])], classes=1, stride=1)
    with_card(path, f"classes: [object]\n{STATISTICS}output: {{threshold: {threshold}}}\n")
    found = study(path)
    assert found.facts["output.kind"] == ("probabilities", "its last operation is Sigmoid")
    assert found.value("classes").names == ("background", "object")
    assert found.value("classes").palette == ((0, 0, 0), (242, 61, 61))
    image = picture()
    expected = run(path, image, "y")[0, 0] > threshold
    assert 0.02 < expected.mean() < 0.98
    assert (labels_of(path, image) == expected).mean() > 0.999


def test_softmax_and_logits_have_the_same_labels(tmp_path):
    path = with_card(network(tmp_path / "soft.onnx", [helper.make_node("Softmax", ["scores"], ["y"], axis=1)]))
    assert study(path).value("output.kind") == "probabilities"
    plain = with_card(network(tmp_path / "plain.onnx", stride=1, weights=None))
    assert (study(plain).value("output.kind"), study(plain).value("output.stride")) == ("logits", 1)
    image = picture()
    expected = np.log(np.maximum(run(path, image, "y"), 1e-6))
    assert (labels_of(path, image) == upsampled(expected, image.shape[:2])).mean() > 0.999


def test_channels_last_bytes_and_fixed_size(tmp_path):
    before = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["p"], perm=[0, 3, 1, 2]),
    ]
    path = network(tmp_path / "bytes.onnx", before=before, shape=(1, 64, 96, 3), kind=TensorProto.UINT8)
    path.with_suffix(".card.yaml").write_text(
        f"classes: {NAMES}\noutput: {{corners: half_pixel}}\ninput: {{layout: nhwc}}\n"
    )
    found = study(path)
    assert (found.value("input.layout"), found.value("input.size")) == ("nhwc", (64, 96))
    assert found.facts["input.mean"] == ((0.0, 0.0, 0.0), "it takes bytes")
    assert found.network.output_layout == "nchw", "by its dimensions, not by its input's"
    image = picture((64, 96))
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = upsampled(session.run(["scores"], {"x": image[None]})[0], (64, 96))
    for runtime in ("onnxruntime", "openvino"):
        assert (labels_of(path, image, runtime=runtime) == expected).mean() > (0.999 if runtime != "openvino" else 0.97)


def test_channels_last_of_any_size(tmp_path):
    before = [helper.make_node("Transpose", ["x"], ["p"], perm=[0, 3, 1, 2])]
    path = with_card(network(tmp_path / "last.onnx", before=before, shape=("n", "h", "w", 3)))
    assert study(path).facts["input.layout"] == ("nhwc", "by its three channels")
    image = picture((64, 96))
    x = ((image - MEAN) / STD).astype(np.float32)[None]
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert (labels_of(path, image) == upsampled(session.run(["scores"], {"x": x})[0], (64, 96))).mean() > 0.999


def test_where_sizes_may_be_why_it_cannot_be_executed_the_line_that_says_them_is_told(tmp_path):
    tail = [
        helper.make_node("MaxPool", ["scores"], ["low"], kernel_shape=[16, 16], strides=[16, 16]),
        helper.make_node("Constant", [], ["by"], value=numpy_helper.from_array(np.array([1, 1, 16, 16], np.float32))),
        helper.make_node("Resize", ["low", "", "by"], ["back"], mode="nearest"),
        helper.make_node("Add", ["scores", "back"], ["y"]),
    ]
    path = with_card(network(tmp_path / "net.onnx", tail))
    with pytest.raises(CheckpointError, match=r"it was given 288 x 256: .* say so: `input: \{multiple: 64\}`"):
        study(path)
    with_card(path, CARD.replace("input: {", "input: {multiple: 64, "))
    assert study(path).card.input.multiple == 64


def test_metadata_of_an_exporter(tmp_path):
    metadata = {"task": "semantic", "stride": "32", "names": "{0: 'road', 1: 'car', 2: 'sky', 3: 'tree', 4: 'pole'}"}
    found = study(network(tmp_path / "yolo.onnx", metadata=metadata))
    assert found.facts["input.std"] == ((255.0,) * 3, "its exporter's")
    assert found.facts["input.multiple"] == (32, "metadata") and found.value("classes").names == tuple(NAMES)
    assert found.card is not None and not found.missing


def test_what_is_not_known_is_asked_for(tmp_path):
    path = network(tmp_path / "net.onnx")
    with pytest.raises(CheckpointError) as caught:
        open_model(path)
    text = str(caught.value)
    assert text.startswith(
        f"{path}: does not tell all that is needed; add to net.card.yaml beside it: `input: {{mean: ["
    )
    assert "`classes: [" in text
    with_card(path, STATISTICS)
    with pytest.raises(CheckpointError, match="`classes: .*names of the 5 classes in order"):
        open_model(path)


def test_one_of_several_outputs_has_to_be_named(tmp_path):
    tail = [helper.make_node("Neg", ["scores"], ["y"])]
    outputs = [(name, TensorProto.FLOAT, [None] * 4) for name in ("scores", "y")]
    path = with_card(network(tmp_path / "two.onnx", tail, outputs=outputs))
    with pytest.raises(CheckpointError, match=r"`output: \{name: scores\}"):
        open_model(path)
    with_card(path, CARD + "output: {name: y}\n")
    image = picture()
    assert (labels_of(path, image) == upsampled(-run(path, image, "scores"), image.shape[:2])).mean() > 0.999
    with_card(path, CARD + "output: {name: z}\n")
    with pytest.raises(CheckpointError, match="output: name: expected one of scores .*, y .*, got 'z'"):
        open_model(path)


@pytest.mark.parametrize(
    ("card", "reason"),
    [
        ("input: {mean: [0.5, 0.5, 0.5], std: [0.2, 0.2, 0.2]}", r"expected mean: \[127.5, .*\], std: \[51.0"),
        ("input: {mean: [1, 2, 3]}", "expected mean and std, both or neither"),
        (
            "input: {mean: [9, 9, 9], std: [9, 0, 9]}",
            r"card.yaml: input: std: expected three numbers above 0, got \(9, 0",
        ),
        ("input: {mean: [9, 9], std: [9, 9]}", r"card.yaml: input: mean: expected three numbers, got \(9, 9\)"),
        ("input: {mean: [9, 9, .nan], std: [9, 9, 9]}", "card.yaml: input: mean: expected three numbers, got"),
        ("input: {multiple: 0}", "card.yaml: input: multiple: expected a whole number, 1 or more, got 0"),
        ("input: {size: 64}", "card.yaml: input: size: expected height and width, whole numbers, 1 or more, got 64"),
        ("colour: red", "expected some of card_version, .*, got colour"),
        ("input: {means: 3}", "input: expected some of name, .*, got means"),
        ("- 1", r"expected some of .*, got \[1\]"),
        ("card_version: 2", "card_version: expected 1, got 2"),
        ("a: [", "not a YAML file"),
        (CARD + "input: {multiple: 8}", "card.yaml: not a YAML file: expected each key once, got 'input' twice"),
        (
            f"classes: [a, b]\n{STATISTICS}",
            "expected 5 classes, as its output has 5 channels, found 2 in net.card.yaml",
        ),
        (CARD + "output: {kind: probabilities}", "expected probabilities, found "),
        (CARD + "output: {corners: round}", "corners: expected one of aligned, half_pixel, got 'round'"),
        (CARD + "output: {threshold: 2}", "threshold: expected a number between 0 and 1, got 2"),
    ],
)
def test_cards_that_make_no_sense(tmp_path, card, reason):
    with pytest.raises(CheckpointError, match=reason):
        open_model(with_card(network(tmp_path / "net.onnx"), card))


def four_channels(path):
    return network(path, shape=(1, 4, 64, 64), weights=np.zeros((5, 4, 4, 4), np.float32))


def two_inputs(path):
    return network(path, extra=[helper.make_tensor_value_info("task", TensorProto.FLOAT, [1, 77])])


def classifier(path):
    tail = [helper.make_node("ReduceMean", ["scores"], ["y"], axes=[2, 3], keepdims=0)]
    return network(path, tail, outputs=[("y", TensorProto.FLOAT, [1, 5])], opset=13)


def not_finite(path):
    return network(path, weights=np.full((5, 3, 4, 4), np.nan, np.float32))


def detector(path):
    return network(path, metadata={"task": "detect"})


def truncated(path):
    network(path)
    path.write_bytes(path.read_bytes()[:200])
    return path


def text(path):
    path.write_text("<html>404</html>")
    return path


def no_data(path):
    network(path, external="net.onnx.data")
    (path.parent / "net.onnx.data").unlink()
    return path


def short_data(path):
    network(path, external="net.onnx.data")
    data = path.parent / "net.onnx.data"
    data.write_bytes(data.read_bytes()[:100])
    return path


def data_of_another(path):
    network(path, external="net.onnx.data")
    (path.parent / "net.onnx.data").write_bytes(bytes(20_000))
    return path


def too_new(path):
    return network(path, opset=99)


def too_many_classes(path):
    return network(path, classes=300)


def unknown_operation(path):
    return network(path, [helper.make_node("Segmentify", ["scores"], ["y"], domain="mine")])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (four_channels, r"expected a picture of 3 channels, found x float32 \[1, 4, 64, 64\]"),
        (two_inputs, "expected one input, a picture, found 2: x .*, task"),
        (classifier, "expected an output of scores .* or class ids .*, found y float32"),
        (detector, "expected a segmentation network, its metadata say task 'detect'"),
        (not_finite, "expected finite values for a picture, found NaN or infinity"),
        (truncated, "expected an ONNX file"),
        (text, "expected an ONNX file"),
        (no_data, "its weights are in net.onnx.data, which is not beside it"),
        (short_data, "expected .* bytes of weights for net.onnx, found 100"),
        (data_of_another, "found 20000; it is truncated or belongs to another network"),
        (too_new, "expected opset .* at most, .*, found 99: export it again"),
        (too_many_classes, "expected at most 255 classes, found 300; net.card.yaml beside it may put them together"),
        (unknown_operation, "cannot be executed: onnxruntime: .*; openvino: "),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_files_have_one_clear_error(tmp_path, make, reason):
    with pytest.raises(CheckpointError, match=reason) as caught:
        open_model(with_card(make(tmp_path / "net.onnx")))
    assert "\n" not in str(caught.value)


def test_what_ends_the_process_that_loads_it_is_an_error_message(tmp_path, monkeypatch, processes):
    monkeypatch.setattr(probe, "PROGRAM", ("-c", "import os; os.abort()"))
    with pytest.raises(
        CheckpointError, match=r"onnxruntime: it ends the process that loads it \(SIGABRT\); openvino: it ends"
    ):
        open_model(with_card(network(tmp_path / "net.onnx")))


def test_a_trial_is_made_once(tmp_path, monkeypatch, processes):
    path = with_card(network(tmp_path / "net.onnx"))
    first = study(path).trial
    monkeypatch.setattr(probe, "PROGRAM", ("-c", "import os; os.abort()"))
    assert study(path).trial == first
    network(path, weights=np.ones((5, 3, 4, 4), np.float32))  # another network of that name
    with pytest.raises(CheckpointError, match="ends the process"):
        study(path)


def test_weights_in_another_file_are_part_of_what_it_is(tmp_path):
    path = with_card(network(tmp_path / "net.onnx", external="net.onnx.data"))
    data, image = tmp_path / "net.onnx.data", picture()
    before, labels = study(path).network.checksum, labels_of(path, image, runtime="openvino")
    network(tmp_path / "other.onnx", weights=np.random.default_rng(9).normal(size=(5, 3, 4, 4)).astype(np.float32),
            external="other.data")  # fmt: skip
    data.write_bytes((tmp_path / "other.data").read_bytes())
    assert study(path).network.checksum != before
    assert (labels_of(path, image, runtime="openvino") != labels).mean() > 0.1, "the old network runs"


def test_a_runtime_that_cannot_execute_it_says_so(tmp_path):
    path = with_card(network(tmp_path / "net.onnx"))
    with pytest.raises(ConfigError, match="runtime: eager cannot execute the segmenter, which is in an ONNX file"):
        build_engine(EngineConfig(weights=str(path), runtime="eager"))
    with pytest.raises(
        ConfigError, match="runtime: onnxruntime cannot execute the segmenter, which is in no ONNX file"
    ):
        build_engine(EngineConfig(runtime="onnxruntime"))


def test_what_one_runtime_does_not_know_another_may(tmp_path, monkeypatch):
    """Trials are asked for by name; a runtime that fails is not used."""
    monkeypatch.setattr(OnnxRuntime, "compile", lambda *_: 1 / 0)
    network_ = study(with_card(network(tmp_path / "net.onnx"))).network
    assert network_.backends == ("openvino",)
    assert network_.problems["onnxruntime"] == "onnxruntime: ZeroDivisionError: division by zero"
    with pytest.raises(ConfigError, match="runtime: the segmenter cannot be executed by onnxruntime: ZeroDivision"):
        build_engine(EngineConfig(weights=str(tmp_path / "net.onnx"), runtime="onnxruntime"))


QUERIES, WITH_NONE = 7, 6


def of_queries(path, **more):
    """Masks of seven queries are the scores; their classes are constants."""
    classes = np.random.default_rng(3).normal(size=(1, QUERIES, WITH_NONE)).astype(np.float32) * 4
    tail = [helper.make_node("Constant", [], ["classes"], value=numpy_helper.from_array(classes))]
    outputs = [("scores", TensorProto.FLOAT, [1, QUERIES, None, None]),
               ("classes", TensorProto.FLOAT, [1, QUERIES, WITH_NONE])]  # fmt: skip
    return network(path, tail, classes=QUERIES, outputs=outputs, **more), classes


@pytest.mark.parametrize("mask_size", [None, (40, 40)])
def test_masks_and_classes_of_queries(tmp_path, mask_size):
    import torch

    path, classes = of_queries(tmp_path / "queries.onnx")
    with_card(path, CARD + (f"output: {{mask_size: {list(mask_size)}}}\n" if mask_size else ""))
    found = study(path)
    assert found.value("output.kind") == "queries" and found.value("output.class_queries") == "classes"
    image = picture()
    masks = torch.from_numpy(run(path, image, "scores"))
    if mask_size:
        masks = torch.nn.functional.interpolate(masks, mask_size, mode="bilinear")
    shares = torch.from_numpy(classes).softmax(-1)[..., :-1]
    scores = torch.einsum("bqc,bqhw->bchw", shares, masks.sigmoid()).numpy()
    expected = upsampled(scores, image.shape[:2])
    assert len(np.unique(expected)) > 1
    assert (labels_of(path, image) == expected).mean() > 0.999
    assert (labels_of(path, image, runtime="openvino") == expected).mean() > 0.97  # perhaps in bfloat16


@pytest.mark.parametrize("ids", [False, True])
def test_classes_are_put_together_by_the_card(tmp_path, ids):
    """300 channels or ids become two classes."""
    kernel = np.random.default_rng(1).normal(size=(300, 3, 1, 1)).astype(np.float32)
    tail, outputs = [], None
    if ids:
        tail = [helper.make_node("ArgMax", ["scores"], ["ids"], axis=1, keepdims=0),
                helper.make_node("Abs", ["ids"], ["y"])]  # fmt: skip
        outputs = [("y", TensorProto.INT64, [1, None, None])]
    path = network(tmp_path / "many.onnx", tail, classes=300, stride=1, weights=kernel, outputs=outputs)
    with_card(path, f"map: {{low: {list(range(150))}, high: {list(range(150, 300))}}}\n{STATISTICS}")
    image = picture()
    found = run(path, image, "y" if ids else "scores")
    expected = (found[0] if ids else found[0].argmax(0)) >= 150
    assert 0.05 < expected.mean() < 0.95 and study(path).value("classes").names == ("low", "high")
    assert (labels_of(path, image) == expected).mean() > 0.999
    with_card(path, f"map: {{low: [1], high: [1]}}\n{STATISTICS}")
    with pytest.raises(
        CheckpointError, match="map: expected lists of the network's own class ids .*, got one id twice"
    ):
        open_model(path)
    if not ids:
        with_card(path, f"map: {{low: [1], high: [300]}}\n{STATISTICS}")
        with pytest.raises(
            CheckpointError, match="map: expected ids below 300, as its output has 300 channels, got 300"
        ):
            open_model(path)


def test_letterboxed_pictures_have_labels_of_all_of_it(tmp_path):
    """A fixed square sees the whole picture within a grey border, at its own aspect."""
    import cv2

    path = with_card(network(tmp_path / "square.onnx", shape=(1, 3, 96, 96)),
                     f"classes: {NAMES}\ninput: {{mean: [120.0, 110.0, 100.0], std: [60.0, 50.0, 40.0], "
                     "fit: letterbox, resize: linear}\n")  # fmt: skip
    image = picture((96, 192))
    small = np.full((96, 96, 3), 114, np.uint8)
    small[24:72] = cv2.resize(image, (96, 48), interpolation=cv2.INTER_LINEAR)
    expected = upsampled(run(path, small, "scores")[:, :, 6:18], image.shape[:2])
    assert (labels_of(path, image) == expected).mean() > 0.999


def test_a_square_of_as_many_pixels(tmp_path):
    path = with_card(network(tmp_path / "net.onnx"), CARD.replace("input: {", "input: {size_rule: square, "))
    image = picture((96, 216))  # 144 x 144 pixels
    from vidseg_core.kernels.smooth import smooth_resize

    expected = upsampled(run(path, smooth_resize(image, (128, 128), "bilinear"), "scores"), image.shape[:2])
    assert (labels_of(path, image) == expected).mean() > 0.999


def test_an_onnx_file_is_no_refinement(tmp_path):
    with pytest.raises(CheckpointError, match="expected weights of .*guided-refine.*, found an ONNX file"):
        open_model(with_card(network(tmp_path / "net.onnx")), "refine")


def test_what_only_pytorch_can_do_says_so(tmp_path):
    """Calibration and the training of refinement run the network; files of weights are read, converted, shown."""
    path = with_card(network(tmp_path / "net.onnx"))
    model = open_model(path)
    with pytest.raises(CheckpointError, match="net.onnx: expected swiftnet-.*, found an ONNX file"):
        model.torch_network("segmenter")
    with pytest.raises(CheckpointError, match="expected a file of weights, found an ONNX file"):
        read_file(path)
    with build_engine(EngineConfig(weights=str(path), runtime="onnxruntime")) as engine:
        with pytest.raises(
            ConfigError, match="weights: expected a segmenter that PyTorch can run, .*, got an ONNX file"
        ):
            run_case(CASES[0], engine, 1, 1)
