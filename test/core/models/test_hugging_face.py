"""Hugging Face directories that are refused. What needs `transformers` is in `test_families.py`."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vidseg_core.errors import CheckpointError
from vidseg_core.models.open import open_model
from vidseg_core.models.registry import find_weights


def directory(path, architecture="SegformerForSemanticSegmentation", weights="model.safetensors", **more):
    path.mkdir()
    (path / "config.json").write_text(json.dumps({"architectures": [architecture], "model_type": "segformer"} | more))
    if weights.endswith("safetensors"):
        save_file({"a": torch.zeros(1)}, path / weights)
    else:
        torch.save({"a": np.zeros(1)}, path / weights)
    return path


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (
            {"architecture": "SegformerForImageClassification"},
            "expected a semantic segmentation network .*, found Segf",
        ),
        ({"architecture": "DetrForObjectDetection"}, "found DetrForObjectDetection"),
        ({"architecture": "OneFormerForUniversalSegmentation"}, "found OneFormerForUniversalSegmentation"),
        ({"weights": "pytorch_model.bin"}, "found pytorch_model.bin, which holds pickled code and is not read"),
        ({"weights": "other.txt"}, "expected model.safetensors beside config.json, found none"),
        ({"architectures": None}, "config.json: expected `architectures`, the name of a class, got None"),
    ],
)
def test_other_directories_are_refused(tmp_path, given, reason):
    with pytest.raises(CheckpointError, match=reason):
        open_model(directory(tmp_path / "net", **given))


def test_a_directory_without_configuration_is_none(tmp_path):
    with pytest.raises(CheckpointError, match="expected a weight file or a Hugging Face directory; it has no config"):
        find_weights(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="config.json: not a JSON file"):
        open_model(tmp_path)


def test_truncated_weights_are_named(tmp_path):
    file = directory(tmp_path / "net") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-2])
    with pytest.raises(CheckpointError, match="net/model.safetensors: expected a safetensors file; it is truncated"):
        open_model(tmp_path / "net")


def test_it_is_no_refinement(tmp_path):
    with pytest.raises(CheckpointError, match="expected weights of .*, found a Hugging Face directory"):
        open_model(directory(tmp_path / "net"), "refine")
