import json
import signal
import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from vidseg_core.backends.integers import measured
from vidseg_core.classes import load_classes
from vidseg_core.cli import train as command
from vidseg_core.data.labelled import folder_pair
from vidseg_core.errors import CheckpointError, ConfigError, DatasetError
from vidseg_core.evaluation.metrics.images import evaluate_images
from vidseg_core.models.files import read_classes, read_metadata, read_tensors, save_weights
from vidseg_core.models.open import open_model
from vidseg_core.networks.efficientnet_lite import EfficientNetLite0
from vidseg_core.networks.swiftnet import SwiftNet
from vidseg_core.training import segmenter as training
from vidseg_core.training.augment import Augmentation
from vidseg_core.training.average import WeightAverage
from vidseg_core.training.mix import make_mix
from vidseg_core.training.run import STATE_FILE, TrainingError
from vidseg_core.training.segmenter import SegmenterTraining, train_segmenter

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = SegmenterTraining(
    epochs=3, batch=4, warmup=0.5, rate=3e-3, hold_back=0.2, lovasz=0.5,
    augmentation=Augmentation(crop=(64, 64), scale=(1.0, 1.3), blur=0.0, color=0.2),
)  # fmt: skip
SMALL = replace(QUICK, encoder="lite0", width=16)  # where what it learns does not matter


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Twelve images of 64 x 64: sky above, road below, a car somewhere on it."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name in ("train", "trainannot"):
        (root / name).mkdir()
    for k in range(12):
        labels = np.full((64, 64), 3, np.uint8)
        labels[: rng.integers(20, 36)] = 0
        x, y = rng.integers(0, 40), rng.integers(36, 48)
        labels[y : y + 14, x : x + 20] = 8
        colors = np.zeros((11, 3), np.uint8)
        colors[[0, 3, 8]] = (230, 200, 180), (90, 90, 90), (20, 20, 200)
        noise = rng.integers(0, 20, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(root / "train" / f"a_{k:02d}.png"), colors[labels] + noise)
        cv2.imwrite(str(root / "trainannot" / f"a_{k:02d}.png"), labels)
    return root


@pytest.fixture
def mix(folder):
    return make_mix([folder_pair(folder, "train", load_classes("camvid"))], [1], QUICK.hold_back)


def losses(output):
    return [entry["loss"] for entry in json.loads((output / "history.json").read_text())["epochs"]]


def test_training_learns_and_writes_what_it_says(mix, tmp_path):
    config = replace(QUICK, epochs=8, evaluate_every=4, input_scale=1.5)
    lines = []
    path = train_segmenter(mix, config, tmp_path, command="vidseg train", report=lines.append)
    course = json.loads((tmp_path / "history.json").read_text())["epochs"]
    assert course[-1]["loss"] < 0.6 * course[0]["loss"]
    assert [entry["epoch"] for entry in course if "miou" in entry] == [4, 8] and len(lines) == 3
    assert "of 8 of 11 classes, which cannot be learned: building, pole, sidewalk" in lines[0]
    assert read_classes(path).names == load_classes("camvid").names
    metadata = read_metadata(path)
    assert (metadata["architecture"], metadata["input_scale"]) == ("swiftnet-r18", 1.5)
    rows = mix.parts[0].train.read_image(0).shape[0]
    best = max((e for e in course if "miou" in e), key=lambda e: e["miou"])
    assert metadata["input_rows"] == round(1.5 * rows)
    assert metadata["enlarge"] == (1.5 if best["miou"] > best["miou_not_enlarged"] else 1.0)
    assert metadata["training"]["held_back_miou"] == max(e["miou"] for e in course if "miou" in e)
    assert metadata["training"]["sources"][0]["command"] == "vidseg train"
    assert metadata["training"]["sources"][0]["data"] == [{"name": "train", "train": 10, "held_back": 2, "share": 1.0}]
    tensors = read_tensors(path)
    assert tensors["backbone.conv1.weight"].dtype == torch.float16
    assert tensors["backbone.bn1.running_var"].dtype == torch.float32
    net = open_model(path).networks["segmenter"]
    assert torch.isfinite(net(torch.zeros(1, 3, 64, 64))).all()
    with torch.inference_mode(), measured(net) as ranges:  # of what was held back
        for part in mix.parts:
            evaluate_images(net, part.held_back, 1.5)
    stored = open_model(path).card.activation_ranges
    assert set(stored) == set(ranges) and len(ranges) == 32
    assert stored["logits.conv"] == pytest.approx(ranges["logits.conv"], rel=0.05)
    assert cv2.imread(str(tmp_path / "history.png")).shape[0] > 100
    assert list((tmp_path / "tensorboard").iterdir())


def test_resuming_gives_the_same_training(mix, tmp_path, monkeypatch):
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train_segmenter(mix, SMALL, straight, report=list)
    real, steps = training.SegmenterRun.step, []

    def killed_in_the_second_epoch(run, *batch):
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return real(run, *batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.SegmenterRun, "step", killed_in_the_second_epoch)
        train_segmenter(mix, SMALL, stopped, report=list)
    assert len(losses(stopped)) == 1
    train_segmenter(mix, SMALL, stopped, resume=True, workers=2, report=list)
    assert losses(stopped) == pytest.approx(losses(straight), rel=1e-4)
    ours, theirs = (read_tensors(folder / "last.safetensors") for folder in (stopped, straight))
    assert ours.keys() == theirs.keys()
    for key in (
        "net.logits.conv.weight",
        "average.backbone.encoder._conv_stem.weight",
        "optimizer.exp_avg_sq.logits.conv.bias",
    ):
        torch.testing.assert_close(ours[key], theirs[key], rtol=0.02, atol=1e-4)
    assert [source["from_epoch"] for source in read_metadata(stopped / "last.safetensors")["sources"]] == [1, 2]


def test_a_finished_training_is_not_overwritten_and_resumes_as_it_was(mix, tmp_path):
    config = replace(SMALL, epochs=1, warmup=0.0)
    train_segmenter(mix, config, tmp_path, report=list)
    with pytest.raises(ConfigError, match="--resume"):
        train_segmenter(mix, config, tmp_path, report=list)
    with pytest.raises(ConfigError, match="rate was 0.003, is 0.1"):
        train_segmenter(mix, replace(config, rate=0.1), tmp_path, resume=True, report=list)
    assert len(losses(tmp_path)) == 1
    train_segmenter(mix, replace(config, epochs=2), tmp_path, resume=True, report=list)
    assert len(losses(tmp_path)) == 2


def test_resuming_from_nothing_or_from_a_broken_file(mix, tmp_path):
    with pytest.raises(CheckpointError, match="no such"):
        train_segmenter(mix, SMALL, tmp_path, resume=True)
    (tmp_path / "last.safetensors").write_bytes(b"12345678")
    with pytest.raises(CheckpointError, match=r"last\.safetensors"):
        train_segmenter(mix, SMALL, tmp_path, resume=True)


def test_time_budget_ends_after_a_whole_epoch(mix, tmp_path):
    lines = []
    train_segmenter(mix, SMALL, tmp_path, time_budget_min=1e-6, report=lines.append)
    assert len(losses(tmp_path)) == 1
    assert "stopped after epoch 1 of 3" in lines[-1]


def test_broken_data_is_found_before_training(folder, tmp_path):
    dataset = folder_pair(folder, "train", load_classes("camvid"))
    broken = tmp_path / "broken.png"
    cv2.imwrite(str(broken), np.full((64, 64), 50, np.uint8))
    samples = (*dataset.samples[:-1], replace(dataset.samples[-1], labels=broken))
    with pytest.raises(DatasetError, match=r"broken\.png.*50"):
        train_segmenter(make_mix([replace(dataset, samples=samples)], [1], 0.2), QUICK, tmp_path / "out")


def test_a_loss_that_is_no_number_ends_the_training(mix, tmp_path, monkeypatch):
    monkeypatch.setattr(training.SegmentationLoss, "__call__", lambda self, logits, labels: logits.sum() * float("nan"))
    with pytest.raises(TrainingError, match="finite loss, got nan"):
        train_segmenter(mix, QUICK, tmp_path)


def test_imagenet_weights_reach_network_and_average(mix, tmp_path, monkeypatch):
    torch.manual_seed(4)
    source = SwiftNet(2).backbone.state_dict()
    wanted = ("conv1.", "bn1.", "layer")
    torch.save({k: v for k, v in source.items() if k.startswith(wanted)}, tmp_path / "resnet18.pth")
    seen = {}

    def look(run, workers, budget, report):
        seen.update(net=run.net.state_dict(), average=run.average.net.state_dict())

    monkeypatch.setattr(training.SegmenterRun, "loop", look)
    train_segmenter(mix, QUICK, tmp_path / "out", init=tmp_path / "resnet18.pth")
    for state in seen.values():
        assert torch.equal(state["backbone.layer3.0.conv1.weight"], source["layer3.0.conv1.weight"])


def test_lite0_begins_from_the_public_file_and_says_so(mix, tmp_path):
    torch.manual_seed(4)
    source = EfficientNetLite0().state_dict()
    torch.save(source, tmp_path / "lite0.pth")
    config = replace(QUICK, encoder="lite0", width=16, epochs=1, encoder_rate=1e-6, average=0.0)
    path = train_segmenter(mix, config, tmp_path / "out", init=tmp_path / "lite0.pth", report=lambda line: None)
    metadata = read_metadata(path)
    assert metadata["architecture"] == "swiftnet-lite0"
    assert metadata["normalisation"] == {"mean_rgb": [127.0] * 3, "std_rgb": [128.0] * 3}
    (notice,) = metadata["notices"]
    assert "EfficientNet-Lite0" in notice and "Apache-2.0" in notice
    model = open_model(path)
    net = model.networks["segmenter"]
    convolutions = {name: module for name, module in net.named_modules() if isinstance(module, torch.nn.Conv2d)}
    exact = {name for name, module in convolutions.items() if getattr(module, "keeps_precision", False)}
    assert set(model.card.activation_ranges) == convolutions.keys() - exact
    assert model.card.activation_ranges["backbone.encoder._blocks.3._project_conv"][0] == 0
    kept = net.backbone.encoder._conv_stem.weight
    torch.testing.assert_close(kept, source["_conv_stem.weight"], rtol=0, atol=1e-3)  # at a rate of next to nothing
    # Going on keeps the notice; another file to begin with is not asked for.
    more = replace(config, epochs=2)
    path = train_segmenter(mix, more, tmp_path / "out", resume=True, report=lambda line: None)
    assert read_metadata(path)["notices"] == [notice]


def test_encoder_and_decoder_have_rates_of_their_own(mix, tmp_path):
    config = replace(QUICK, encoder="lite0", width=16, encoder_rate=0.25)
    run = training.SegmenterRun(mix, config, tmp_path, torch.device("cpu"), torch.ones(11), False)
    labels = torch.zeros(2, 64, 64, dtype=torch.long)
    run.step((torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8), labels), 1e-3)
    rates, decays = {}, {}
    for group in run.optimizer.param_groups:
        for parameter in group["params"]:
            assert parameter not in rates
            rates[parameter], decays[parameter] = group["lr"], group["weight_decay"]
    for name, parameter in run.net.named_parameters():
        assert rates[parameter] == (2.5e-4 if name.startswith("backbone.encoder.") else 1e-3), name
        assert decays[parameter] == (config.weight_decay if parameter.ndim > 1 else 0), name
    assert len(rates) == len(list(run.net.parameters()))


@pytest.mark.long
def test_a_state_from_before_encoders_could_be_chosen_goes_on(mix, tmp_path):
    train_segmenter(mix, replace(QUICK, epochs=1), tmp_path, report=lambda line: None)
    path = tmp_path / STATE_FILE
    metadata, tensors = read_metadata(path), read_tensors(path)
    for key in ("encoder", "width", "encoder_rate"):
        del metadata["config"][key]
    for source in metadata["sources"]:
        del source["notices"]
    save_weights(path, tensors, metadata)
    with pytest.raises(ConfigError, match="width was 128, is 16"):
        train_segmenter(mix, replace(QUICK, epochs=2, width=16), tmp_path, resume=True)
    train_segmenter(mix, replace(QUICK, epochs=2), tmp_path, resume=True, report=lambda line: None)
    assert len(losses(tmp_path)) == 2


def test_learning_rate():
    config = SegmenterTraining(epochs=11, warmup=1.0, rate=1.0)
    assert config.rate_at(0) == 0 and config.rate_at(0.5) == 0.5 and config.rate_at(1) == 1
    assert config.rate_at(6) == pytest.approx(0.505) and config.rate_at(11) == pytest.approx(0.01)
    poly = replace(config, schedule="poly")
    assert poly.rate_at(6) == pytest.approx(0.01 + 0.99 * 0.5**0.9)


@pytest.mark.parametrize(
    "options",
    [{"epochs": 0}, {"batch": 1}, {"rate": 0.0}, {"rate": float("nan")}, {"weighting": "cube"}, {"loss_stride": 3},
     {"average": 1.0}, {"hold_back": 0.9}, {"input_scale": 0.0}, {"warmup": 61.0}, {"schedule": "step"}, {"seed": -1},
     {"encoder": "r50"}, {"width": 4}, {"encoder_rate": 0.0}, {"encoder_rate": 1.5}],
)  # fmt: skip
def test_bad_configurations_are_refused(options):
    name = next(iter(options))
    with pytest.raises(ConfigError, match=f"{name}: expected .* got"):
        SegmenterTraining(**options)


def test_average_follows_weights_and_statistics():
    net = SwiftNet(2)
    average = WeightAverage(net, decay=0.5)
    start = net.logits.conv.weight.detach().clone()
    with torch.no_grad():
        net.logits.conv.weight += 1
        net.backbone.bn1.running_mean += 1
        net.backbone.bn1.num_batches_tracked += 1
    average.update(net)  # the first update keeps a tenth only
    torch.testing.assert_close(average.net.logits.conv.weight, start + 0.9)
    torch.testing.assert_close(average.net.backbone.bn1.running_mean, torch.full((64,), 0.9))
    assert average.net.backbone.bn1.num_batches_tracked == 1
    average.updates = 100
    average.update(net)
    torch.testing.assert_close(average.net.logits.conv.weight, start + 0.95)


@pytest.fixture
def arguments(folder, tmp_path):
    return [
        sys.executable, "-m", "vidseg_core.cli", "train", "segmenter", "--data", f"folder:{folder}:train",
        "--classes", "camvid", "--out", str(tmp_path / "out"), "--cache", str(tmp_path), "--num-threads", "1",
        "--batch", "4", "--crop", "64", "64", "--hold-back", "0.2", "--device", "cpu",
    ]  # fmt: skip


def test_command_line(arguments, tmp_path, checkout):
    done = subprocess.run([*arguments, "--epochs", "1"], cwd=checkout, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "held-back mIoU" in done.stdout
    assert f"vidseg weights calibrate {tmp_path / 'out' / 'weights.safetensors'} DST" in done.stdout
    source = read_metadata(tmp_path / "out" / "weights.safetensors")["training"]["sources"][0]
    assert source["command"].startswith("vidseg train segmenter --data folder:")


def test_termination_keeps_the_last_epoch_and_says_so(arguments, tmp_path, checkout):
    process = subprocess.Popen(
        [*arguments, "--epochs", "500"], cwd=checkout, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert "cannot be learned: building" in process.stdout.readline()
    assert "epoch 1:" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "training stopped" in errors.splitlines()[-1] and "--resume" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert read_metadata(tmp_path / "out" / "last.safetensors")["history"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--device", "tpu9"], "device: expected auto, cpu, cuda or cuda:N"),
        (["--time-budget", "0"], "time budget"),
        (["--workers", "0"], "workers and threads"),
        (["--data", "kitti:/x"], "expected KIND:WHERE"),
        (["--scale", "2", "1"], "scale: expected"),
    ],
)
def test_mistakes_in_options_are_one_clear_error(arguments, options, message):
    from vidseg_core.cli.main import build_parser

    args = build_parser([*arguments[3:], *options]).parse_args([*arguments[3:], *options])
    with pytest.raises(ConfigError, match=message):
        command.main(args)


def test_two_processes_train_one_network(arguments, tmp_path, checkout):
    """Half of every batch each, gradients and statistics averaged: both hold the same network, one writes it."""
    script = tmp_path / "worker.py"
    script.write_text(
        """
import sys
from vidseg_core import distributed
from vidseg_core.cli import main as cli
from vidseg_core.training import segmenter
import torch

real = segmenter.SegmenterRun.loop
def loop(run, *arguments):
    path = real(run, *arguments)
    state = {"net": run.net.state_dict(), "average": run.average.net.state_dict(), "history": run.history}
    torch.save(state, f"{sys.argv[1]}/rank{distributed.rank()}.pt")
    return path
segmenter.SegmenterRun.loop = loop
sys.exit(cli.main(sys.argv[2:]))
"""
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = [*arguments[3:], "--epochs", "1", "--warm-up", "0", "--float32"]
    done = subprocess.run(
        [*launch, str(script), str(tmp_path), *options], cwd=checkout, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("held-back mIoU") == 1 and done.stdout.count("weights: ") == 1
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2))
    for part in ("net", "average"):
        for key, value in first[part].items():
            assert torch.equal(value, second[part][key]), key
    assert first["history"][0]["held_back"] == second["history"][0]["held_back"]
    saved = read_tensors(tmp_path / "out" / "last.safetensors")
    assert torch.equal(saved["net.logits.conv.weight"], first["net"]["logits.conv.weight"])
    assert len(list((tmp_path / "out" / "tensorboard").iterdir())) == 1
    assert read_metadata(tmp_path / "out" / "last.safetensors")["sources"][0]["processes"] == 2


def test_a_batch_is_shared_evenly(mix, tmp_path, monkeypatch):
    monkeypatch.setattr(training.distributed, "world_size", lambda: 3)
    with pytest.raises(ConfigError, match="expected a multiple of 3 .* got 4"):
        train_segmenter(mix, QUICK, tmp_path)
