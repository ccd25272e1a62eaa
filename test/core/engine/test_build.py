import gc
import hashlib
import subprocess
import sys
import weakref
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.engine.build import build_engine, update_network
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import read_ego_mask
from vidseg_core.engine.flow import DIS, NetworkFlow, NoFlow
from vidseg_core.engine.key_frames.process import SegmenterProcess
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.errors import CheckpointError, ConfigError
from vidseg_core.frame import Frame
from vidseg_core.models import files as model_files
from vidseg_core.models import open as model_open
from vidseg_core.models.accuracy import PRIOR, Updated
from vidseg_core.models.checkpoint import convert
from vidseg_core.models.checksum import checksum
from vidseg_core.models.files import save_weights
from vidseg_core.networks.flow_light import FlowLight
from vidseg_core.networks.flownet_s import UpstreamFlowNetS
from vidseg_core.networks.guided_refine import GuidedRefine
from vidseg_core.networks.normalisation import MEAN_RGB, STD_RGB
from vidseg_core.networks.swiftnet import SwiftNet

CAMVID = load_classes("camvid")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Untrained weights of every kind."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)

    def save(name, tensors, **metadata):
        save_weights(folder / f"{name}.safetensors", tensors, metadata)

    swiftnet = SwiftNet(11).state_dict()
    save("segmenter", swiftnet, architecture="swiftnet-r18", classes=CAMVID.to_dict(), input_scale=0.5)
    torch.save(swiftnet, folder / "plain.pt")
    refine = {f"refine.{key}": value for key, value in GuidedRefine(11).state_dict().items()}
    light = {f"flow.{key}": value for key, value in FlowLight().state_dict().items()}
    save("refine", refine, architecture="guided-refine", classes=CAMVID.to_dict())
    save("seq", refine | light, architecture="swnet-seq", classes=CAMVID.to_dict())
    other = CAMVID.to_dict()
    other["classes"][0]["name"] = "heaven"
    save("renamed", refine, architecture="guided-refine", classes=other)
    few = {f"refine.{key}": value for key, value in GuidedRefine(5).state_dict().items()}
    save("few", few, architecture="guided-refine")
    torch.save(UpstreamFlowNetS().state_dict(), folder / "flownet.pt")
    return folder


def config(files, **values):
    values = {"device": "cpu", "runtime": "eager", "num_threads": 2} | values
    return EngineConfig(weights=files / "segmenter.safetensors", **values)


def frame(index, size=(96, 128)):
    image = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Frame(image, index * 33_000_000, name=str(index))


def test_a_network_looks_at_propagated_frames(files):
    assert build_engine(config(files)).networks.updater is None
    weights = files / "segmenter.safetensors"
    engine = build_engine(config(files, input_scale=1, update_weights=weights))
    updater = engine.networks.updater
    assert updater.network is not engine.networks.segmenter.network
    assert (updater.input_scale, engine.networks.segmenter.input_scale) == (0.5, 1)
    assert engine.weight_files["updater"] == weights and engine.runtimes()["updater"] == "eager"
    assert build_engine(config(files, update_weights=weights, update_scale=0.25)).networks.updater.input_scale == 0.25
    silent = build_engine(config(files, update_weights=files / "plain.pt"))
    assert silent.networks.updater.input_scale == 0.5


def test_classes_and_input_scale_come_from_the_weights(files):
    engine = build_engine(config(files))
    assert engine.classes == CAMVID
    assert engine.networks.segmenter.input_scale == 0.5
    assert build_engine(config(files, input_scale=2)).networks.segmenter.input_scale == 2


@pytest.mark.parametrize(
    ("size", "expected"), [((1080, 1920), (544, 960)), ((720, 1280), (544, 960)), ((360, 480), (544, 704))]
)
def test_a_camera_is_seen_at_the_rows_of_the_training_whatever_its_resolution(files, size, expected):
    tensors = SwiftNet(11).state_dict()
    metadata = {"architecture": "swiftnet-r18", "classes": CAMVID.to_dict(), "input_rows": 540, "enlarge": 1.5}
    save_weights(files / "rows.safetensors", tensors, metadata | {"input_scale": 1.5})
    engine = build_engine(EngineConfig(weights=files / "rows.safetensors", device="cpu", runtime="eager"))
    segmenter = engine.networks.segmenter
    assert segmenter.input_scale is None and segmenter.input_size(size) == expected
    assert (engine.describe()["input_scale"], engine.describe()["input_rows"]) == (None, 540)


def test_description(files):
    engine = build_engine(config(files, refine=True, refine_weights=files / "refine.safetensors"))
    about = engine.describe()
    assert about["weights"]["segmenter"] == {
        "file": "segmenter.safetensors",
        "sha256": checksum(files / "segmenter.safetensors", "sha256"),
    }
    assert about["weights"]["refine"]["file"] == "refine.safetensors"
    assert about["runtime"] == {"segmenter": "eager", "refine": "eager"}
    assert about["device"] == "cpu" and about["num_threads"] == 2 and about["config"]["refine"] is True


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"flow": "dis"}, DIS),
        ({"flow": "none"}, NoFlow),
        ({"flow": "light", "refine_weights": "seq.safetensors"}, NetworkFlow),
        ({"flow": "light", "flow_weights": "seq.safetensors"}, NetworkFlow),
        ({"flow": "flownet_s", "flow_weights": "flownet.pt"}, NetworkFlow),
    ],
)
def test_every_flow_runs_through_a_stream(files, values, kind):
    values = {key: files / value if key.endswith("weights") else value for key, value in values.items()}
    engine = build_engine(config(files, **values))
    assert isinstance(engine.networks.flow, kind)
    stream = engine.stream()
    results = [stream.step(frame(i)) for i in range(3)]
    assert [result.is_key for result in results] == [True, False, False]
    assert all(result.labels.shape == (96, 128) and result.labels.max() < 11 for result in results)


def test_two_runs_give_the_same_labels(files):
    values = {"refine": True, "refine_weights": files / "seq.safetensors", "flow": "light", "interval": 2}
    runs = []
    for _ in range(2):
        stream = build_engine(config(files, **values)).stream()
        runs.append([stream.step(frame(i)).labels for i in range(5)])
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_public_swnet_seq_on_a_real_snippet(files, shared_data, upstream_weights, tmp_path):
    path = tmp_path / "city.safetensors"
    torch.manual_seed(0)
    city = load_classes("cityscapes")
    save_weights(path, SwiftNet(19).state_dict(), {"architecture": "swiftnet-r18", "classes": city.to_dict()})
    engine = build_engine(
        EngineConfig(
            weights=path,
            refine_weights=upstream_weights / "cityscapes-swnet_model_best.pth.tar",
            flow="light",
            refine=True,
            grid_stride=8,
            input_scale=0.25,
            interval=2,
            device="cpu",
            runtime="eager",
        )  # fmt: skip
    )
    folder = shared_data / "cityscapes_sequence" / "leftImg8bit_sequence" / "val" / "lindau"
    stream = engine.stream()
    for k, file in enumerate(sorted(folder.glob("*.png"))):
        image = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
        result = stream.step(Frame(image, k * 58_823_529, name=file.stem))
        assert result.labels.shape == (1024, 2048) and result.age == k
    assert stream.refined.guide.shape == (1, 11, 128, 256)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"classes": "cityscapes"}, "expected 19 classes as in class table 'cityscapes', found 11"),
        ({"refine_weights": "few.safetensors"}, "few.*expected 11 classes as in class table 'camvid', found 5"),
        (
            {"refine_weights": "renamed.safetensors"},
            r"expected the classes of table 'camvid' .*found those of .*heaven",
        ),
        ({"refine_weights": "segmenter.safetensors"}, "expected weights of swnet-seq or guided-refine, found swiftnet"),
        ({"flow": "light", "refine_weights": "refine.safetensors"}, "brings no flow network"),
        ({"update_weights": "gone.pt"}, "neither a weight file nor the name of one"),
        ({"update_weights": "refine.safetensors"}, "expected weights of swiftnet"),
        ({"flow": "flownet2_s", "flow_weights": "flownet.pt"}, "expected weights of flownet2_s, found flownet_s"),
        ({"weights": "plain.pt"}, "does not tell its 11 classes; name a class table"),
        ({"weights": "gone.pt"}, "neither a weight file nor the name of one"),
    ],
)
def test_weights_that_do_not_fit(files, values, message):
    values = {key: files / value if key.endswith("weights") else value for key, value in values.items()}
    with pytest.raises(CheckpointError, match=message):
        build_engine(EngineConfig(**{"weights": files / "segmenter.safetensors", "device": "cpu"} | values))


def test_a_class_table_for_weights_that_do_not_tell(files):
    engine = build_engine(EngineConfig(weights=files / "plain.pt", classes="camvid", device="cpu"))
    assert engine.classes == CAMVID


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there(files):
    with pytest.raises(ConfigError, match="device: expected a device that is there, got 'cuda'"):
        build_engine(EngineConfig(weights=files / "segmenter.safetensors", device="cuda"))
    assert build_engine(EngineConfig(weights=files / "segmenter.safetensors")).networks.device.type == "cpu"


def test_every_network_runs_in_the_runtime_that_was_asked_for(files):
    values = {"refine": True, "refine_weights": files / "seq.safetensors", "flow": "light"}
    engines = [build_engine(config(files, runtime=runtime, **values)) for runtime in ("eager", "openvino")]
    assert engines[1].runtimes() == {"segmenter": None, "flow": None, "refine": None}
    picture = frame(0)
    streams = [engine.stream() for engine in engines]
    for k in range(2):
        labels = [stream.step(Frame(picture.image, k)).labels for stream in streams]
        assert (labels[0] == labels[1]).mean() > 0.9  # untrained, so a class wins by a hair
    assert set(engines[0].runtimes().values()) == {"eager"}
    assert all(name.startswith("openvino ") for name in engines[1].runtimes().values())


def test_ego_mask_file(files, tmp_path):
    mask = np.zeros((96, 128), np.uint8)
    mask[90:] = 255
    cv2.imwrite(str(tmp_path / "ego.png"), mask)
    engine = build_engine(config(files, ego_mask=tmp_path / "ego.png"))
    labels = engine.stream().step(frame(0)).labels
    assert (labels[90:] == 255).all() and (labels[:90] != 255).all()
    with pytest.raises(ConfigError, match=r"ego_mask: .*gone\.png: no such file"):
        engine.stream(tmp_path / "gone.png")
    (tmp_path / "bad.png").write_text("no picture")
    with pytest.raises(ConfigError, match=r"bad\.png: expected a picture"):
        read_ego_mask(tmp_path / "bad.png")


OPENED, HASHED = [], []
sys.addaudithook(lambda event, args: OPENED.append(str(args[0])) if event == "open" else None)


def test_each_weight_file_is_opened_and_hashed_once(files, monkeypatch):
    monkeypatch.setattr(model_files, "open_safetensors", lambda path: pytest.fail(f"{path} is opened another time"))
    for kind in ("sha256", "sha1"):
        made = getattr(hashlib, kind)
        counting = lambda *args, made=made, kind=kind, **more: HASHED.append(kind) or made(*args, **more)  # noqa: E731
        monkeypatch.setattr(model_files.hashlib, kind, counting)
    OPENED.clear()
    HASHED.clear()
    weights, seq = files / "segmenter.safetensors", files / "seq.safetensors"
    values = {"refine": True, "refine_weights": seq, "flow": "light", "flow_weights": seq, "update_weights": weights}
    engine = build_engine(config(files, **values))
    ours = [path for path in OPENED if path.startswith(str(files))]
    assert sorted(ours) == sorted([str(weights), str(seq)])
    assert sorted(HASHED) == ["sha1", "sha1", "sha256", "sha256"]
    assert engine.weight_files == {"segmenter": weights, "refine": seq, "flow": seq, "updater": weights}
    assert engine.networks.updater.network is not engine.networks.segmenter.network


def test_the_statistics_in_a_file_are_those_of_its_networks_input(files, tmp_path):
    path = tmp_path / "other.safetensors"
    torch.manual_seed(0)
    other = {"mean_rgb": [10.0, 20.0, 30.0], "std_rgb": [50.0, 60.0, 70.0]}
    metadata = {"architecture": "swiftnet-r18", "classes": CAMVID.to_dict(), "normalisation": other}
    save_weights(path, SwiftNet(11).state_dict(), metadata)
    seen = []
    for weights in (path, files / "segmenter.safetensors"):
        engine = build_engine(EngineConfig(weights=weights, device="cpu", runtime="eager", input_scale=1))
        engine.networks.segmenter.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        engine.stream().step(frame(0))
    image = torch.from_numpy(frame(0).image).permute(2, 0, 1)[None].float()
    for x, mean, std in zip(seen, (other["mean_rgb"], MEAN_RGB), (other["std_rgb"], STD_RGB), strict=True):
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (mean, std))
        torch.testing.assert_close(x, (image - mean) / std, rtol=0, atol=1e-4)


def test_networks_on_the_grid_share_one_picture(files, tmp_path):
    path = tmp_path / "refine.safetensors"
    refine = {f"refine.{key}": value for key, value in GuidedRefine(11).state_dict().items()}
    other = {"mean_rgb": [10.0, 20.0, 30.0], "std_rgb": [50.0, 60.0, 70.0]}
    save_weights(path, refine, {"architecture": "guided-refine", "normalisation": other})
    with pytest.raises(CheckpointError, match=r"refine\.safetensors: normalisation: expected mean .*found \(10\.0, 20"):
        build_engine(config(files, refine=True, refine_weights=path))


def test_a_given_segmenter_comes_with_its_classes():
    with pytest.raises(ConfigError, match="classes: expected the class table of the given segmenter, got none"):
        build_engine(EngineConfig(), segmenter=TruthSegmenter(11))


def test_segmenters_on_another_encoder_and_of_another_width(files, tmp_path):
    for name, encoder, width in (("key", "lite0", 24), ("update", "lite0", 8)):
        torch.manual_seed(width)
        metadata = {"architecture": f"swiftnet-{encoder}", "classes": CAMVID.to_dict(), "input_scale": 0.5}
        network = SwiftNet(11, encoder, width)
        checkpoint = tmp_path / f"{name}.pt"
        torch.save(network.state_dict(), checkpoint)
        convert(checkpoint, tmp_path / f"{name}.safetensors", known=metadata)
    engine = build_engine(
        EngineConfig(
            weights=tmp_path / "key.safetensors", update_weights=tmp_path / "update.safetensors", device="cpu",
            runtime="eager", refine=True, refine_weights=files / "refine.safetensors", interval=2,
        )
    )  # fmt: skip
    segmenter, updater = engine.networks.segmenter, engine.networks.updater
    assert (segmenter.network.backbone.spp.spp.spp_bn.conv.out_channels, updater.input_scale) == (24, 0.5)
    assert segmenter.input.mean == updater.input.mean == (127.0, 127.0, 127.0)
    stream = engine.stream()
    for number in range(3):
        assert stream.step(frame(number)).labels.shape == (96, 128)


def test_a_network_that_runs_in_another_process_is_not_kept_here(files, monkeypatch, tmp_path):
    opened, open_own = [], model_open._open_own

    def watching(*args):
        model, checksums = open_own(*args)
        opened.append(weakref.ref(model.networks["segmenter"]))
        return model, checksums

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(model_open, "_open_own", watching)
    with build_engine(config(files, key_frames="async")) as engine:
        gc.collect()
        assert [network() for network in opened] == [None]
        assert engine.weight_files == {"segmenter": files / "segmenter.safetensors"}
        assert len(engine.describe()["weights"]["segmenter"]["sha256"]) == 64


SECOND_START = """
import sys
import numpy as np
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.governed import GovernedEngine
from vidseg_core.frame import Frame

update = sys.argv[2] if len(sys.argv) > 2 else None
config = EngineConfig(
    weights=sys.argv[1], update_weights=update, key_frames="async", runtime="openvino", interval=2, num_threads=1
)
with build_engine(config) as engine:
    governed = GovernedEngine(engine, set())
    governed.prepare((96, 128))
    stream = governed.stream()
    for number in range(8):
        stream.set_confidence(number > 4), stream.set_probabilities(number > 5)
        image = np.random.default_rng(number).integers(0, 256, (96, 128, 3), np.uint8)
        assert stream.step(Frame(image, number * 33_000_000)).labels.shape == (96, 128)
    print(engine.runtimes(), "torch" in sys.modules)
"""


def test_a_second_start_needs_no_pytorch(files, monkeypatch, tmp_path):
    """It takes a second and 200 MB that a vehicle has better uses for."""
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    weights = files / "segmenter.safetensors"
    values = {"key_frames": "sync", "runtime": "openvino", "num_threads": 1, "interval": 9}
    with build_engine(config(files, update_weights=weights, update_scale=0.5, **values)) as engine:
        stream = engine.stream()
        for number in range(2):
            stream.step(frame(number, (96, 128)))
        expected = engine.runtimes()
    model_open.open_reloadable(weights)  # as the first start does
    for arguments, roles in (([weights], {"segmenter"}), ([weights, weights], {"segmenter", "updater"})):
        command = [sys.executable, "-c", SECOND_START, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        runtimes = {role: runtime for role, runtime in expected.items() if role in roles}
        assert done.stdout.split("\n")[0] == f"{runtimes} False"


def test_the_update_network_that_a_record_names_is_made_for_a_governor(files, monkeypatch, tmp_path, caplog):
    caplog.set_level("INFO", "vidseg_core")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    weights = files / "segmenter.safetensors"
    named = replace(PRIOR, update=Updated(str(weights), ((0.0, 0.0), (1.0, 2.0))))
    with build_engine(config(files, key_frames="async", runtime="openvino", num_threads=1)) as engine:
        assert update_network(engine) is None and caplog.records == [], "without a record nothing is expected"
        monkeypatch.setattr(type(engine), "accuracy", named)
        monkeypatch.setattr("vidseg_core.engine.build.is_known", lambda name: False)
        assert update_network(engine) is None
        assert f"no update network ({weights}): `vidseg compile` has not been run for it here" in caplog.text
        monkeypatch.undo()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        monkeypatch.setattr(type(engine), "accuracy", named)
        network = update_network(engine)  # its file was opened above
        size, picture = (96, 128), frame(0, (96, 128))
        network.ask([size])
        while network.costs_s([size]) is None:
            assert network._getting_ready is not None, caplog.text
            network._getting_ready.join(0.1)
        scores = network(picture)
        expected = SegmenterProcess.__call__(network._process, picture)
        np.testing.assert_array_equal(scores, expected)
        assert scores.shape[:2] == (1, 11) == (1, network.num_classes)
        assert network._process._task.priority == "usual"
        network.close()
        assert network._process is None
        sync = engine.variant(config(files, key_frames="sync"))
        assert update_network(sync) is None and "on the CPU, with asynchronous key frames" in caplog.text
