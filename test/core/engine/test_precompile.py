"""What is compiled ahead is what a governor uses."""

from dataclasses import replace

import pytest
import torch

from vidseg_core.classes import load_classes
from vidseg_core.engine import precompile
from vidseg_core.engine.config import EngineConfig
from vidseg_core.models.accuracy import PRIOR, Updated
from vidseg_core.models.files import save_weights
from vidseg_core.networks.swiftnet import SwiftNet


@pytest.mark.parametrize(("told", "expected"), [({}, 0.5), ({"input_scale": 0.25}, 0.25)])
def test_an_update_network_is_compiled_at_the_scale_at_which_it_is_used(monkeypatch, tmp_path, told, expected):
    torch.manual_seed(0)
    path, compiled = tmp_path / "update.safetensors", []
    metadata = {"architecture": "swiftnet-r18", "classes": load_classes("camvid").to_dict()}
    save_weights(path, SwiftNet(11).state_dict(), metadata | told)
    record = replace(PRIOR, update=Updated(str(path), ((0.0, 0.0), (1.0, 2.0))))

    def compile_one(config, size, shares):
        compiled.append((config.weights, config.input_scale, size, shares))
        return "openvino", record

    monkeypatch.setattr(precompile, "_compile", compile_one)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    runtimes = precompile.compile_networks(EngineConfig(weights="large"), (96, 128))
    assert runtimes == {"large": "openvino", str(path): "openvino"}
    assert compiled == [
        ("large", None, (96, 128), precompile.SHARES),
        (str(path), expected, (96, 128), (1.0,)),
    ]
