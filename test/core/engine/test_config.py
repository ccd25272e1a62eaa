from pathlib import Path

import pytest

from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"interval": -1}, "interval: expected 0 or more, got -1"),
        ({"interval": 1.5}, "interval: expected a value of type int, got 1.5"),
        ({"key_frames": "later"}, "key_frames: expected one of sync, async, got 'later'"),
        ({"schedule": "random"}, "schedule: expected one of fixed, adaptive, got 'random'"),
        ({"min_interval": -1}, "min_interval: expected 0 or more, got -1"),
        ({"max_interval": 0}, r"max_interval: expected 1 \(min_interval\) or more, got 0"),
        ({"max_interval": 5.0}, "max_interval: expected a value of type int"),
        ({"change_threshold": 1.5}, r"change_threshold: expected a number in 0\.\.1, got 1.5"),
        ({"interval": True}, "interval: expected a value of type int"),
        ({"input_scale": 0.1}, r"input_scale: expected auto or a number in 0.25\.\.2, got 0.1"),
        ({"input_scale": "1"}, "input_scale: expected auto or a number"),
        ({"update_scale": 0.1}, r"update_scale: expected auto or a number in 0.25\.\.2, got 0.1"),
        ({"update_scale": 0.5}, "update_scale: it is the scale of update_weights, none are given"),
        ({"flow_scale": 2}, "flow_scale: expected a number in 0.05..1, got 2"),
        ({"grid_stride": 6}, "grid_stride: expected one of 2, 4, 8, got 6"),
        ({"flow": "raft"}, "flow: expected one of dis, light, flownet_s, flownet2_s, none, got 'raft'"),
        ({"dis_preset": "slow"}, "dis_preset: expected one of"),
        ({"warp_padding": "mirror"}, "warp_padding: expected one of zeros, border"),
        ({"device": "tpu"}, "device: expected auto, cpu, cuda or cuda:N, got 'tpu'"),
        ({"device": "cuda:x"}, "device: expected"),
        ({"runtime": "onnx"}, "runtime: expected one of auto, eager, openvino, .*, cuda_half_graph, got 'onnx'"),
        ({"max_gap_s": 0}, "max_gap_s: expected a number of seconds above 0"),
        ({"num_threads": -2}, "num_threads: expected 0"),
        ({"refine": True}, "refine: refinement needs refine_weights"),
        ({"refine": 1, "refine_weights": "x"}, "refine: expected a value of type bool"),
        ({"flow": "light"}, "flow: 'light' needs flow_weights, or refine_weights"),
        ({"flow": "flownet_s"}, "flow: 'flownet_s' needs flow_weights"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ConfigError, match=message):
        EngineConfig(**values)


def test_auto_is_the_default_of_what_is_found_at_work():
    chosen = EngineConfig(input_scale="auto", update_scale="auto")
    assert (chosen.input_scale, chosen.update_scale) == (None, None) and chosen == EngineConfig()
    with pytest.raises(ConfigError, match="flow_scale: expected a number"):
        EngineConfig(flow_scale="auto")


def test_frozen_and_json_safe():
    config = EngineConfig(weights=Path("a.pt"))
    assert config.to_dict()["weights"] == "a.pt"
    with pytest.raises(AttributeError):
        config.interval = 3
