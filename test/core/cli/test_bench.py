import json

import pytest
import torch

from vidseg_core.cli import bench
from vidseg_core.cli.main import main
from vidseg_core.evaluation.bench import gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a card")
def test_a_card_that_is_not_there(capsys):
    assert main(["bench", "--device", "cuda"]) == 2
    assert "device: expected a device that is there, got 'cuda'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["video", "--device", "cuda"], "--device: expected cpu for bench video, got cuda"),
        (["--device", "cuda", "--rounds", "0"], "--rounds: expected 1 or more, got 0"),
        (["camera", "--rounds", "0"], "--rounds: expected 1 or more, got 0"),
        (["schedules", "--interval", "0"], "--interval: expected 1 or more, got 0"),
        (["--device", "auto", "--rounds", "1"], "--device auto: expected a CUDA device, and Triton installed"),
    ],
)
def test_what_does_not_go_together(words, message, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("good", "status"), [(True, 0), (False, 1)])
def test_a_card_is_measured(good, status, tmp_path, monkeypatch):
    asked = []

    def measure(device, loops):
        asked.append((str(device), loops))
        return {"card": "H100", "good": good}

    monkeypatch.setattr(gpu, "measure", measure)
    monkeypatch.setattr("vidseg_core.devices.open_device", torch.device)
    monkeypatch.setattr("vidseg_core.kernels.dispatch.provide", lambda kind: True)
    written = tmp_path / "card.json"
    assert main(["bench", "--device", "cuda:1", "--rounds", "7", "--json", str(written)]) == status
    assert asked == [("cuda:1", 7)] and json.loads(written.read_text())["card"] == "H100"
    assert "--device" in bench.EXAMPLES
