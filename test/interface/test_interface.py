"""What users wrote down for version 0.1.0 (launch files, parameter files, scripts, weight files) still works.

More may come; what is there keeps its name, type, default and range.
"""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
RECORDED = json.loads((HERE / "interface.json").read_text(encoding="utf-8"))
# What version 0.2.0 changed on purpose, by its place in the record; the values of 0.1.0 still are understood.
# Sizes of networks' inputs follow the rows that their weights were trained at: `auto`, where 0 stood.
AUTO_SCALE = {"type": "STRING", "default": "auto", "range": "auto, 0.25 to 2"}
CHANGED = {f"/{name}/{key}": value for name in ("input_scale", "update_scale") for key, value in AUTO_SCALE.items()}
# What the governor chooses is `auto` where nothing else is given.
GOVERNED = {
    "interval": {"type": "STRING", "default": "auto", "range": "auto, 0 to 1000"},
    "key_frames": {"default": "auto"},
    "grid_stride": {"type": "STRING", "default": "auto", "range": "auto, 0, 2, 4, 8"},
    "update_weights": {"default": "auto"},
}
# The networks that come with the package; the old name of the one that went is understood.
CHANGED |= {"/weights/default": "camvid-swiftnet-lite0"}
REPLACED = {"camvid-update-r18.safetensors": "camvid-update-lite0.safetensors"}
CHANGED |= {f"/{name}/{key}": value for name, changes in GOVERNED.items() for key, value in changes.items()}


@pytest.fixture(scope="module")
def surface():
    specification = importlib.util.spec_from_file_location("surface", HERE / "surface.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def lost(recorded, now, where="") -> list[str]:
    """Paths of all that is recorded and now missing or another.

    An option may have further spellings and values, and one that had to be given need not be any more.
    """
    if where.endswith(("/spellings", "/choices")) and isinstance(recorded, list):
        return [f"{where}: {one} is missing" for one in recorded if one not in (now or [])]
    if where.endswith("/range") and isinstance(recorded, str) and "," in recorded:
        return [f"{where}: {one} is missing" for one in recorded.split(", ") if one not in now.split(", ")]
    if where.endswith("/required") and not now:
        return []
    if isinstance(recorded, dict) and isinstance(now, dict):
        return [
            problem
            for key, value in recorded.items()
            for problem in (lost(value, now[key], f"{where}/{key}") if key in now else [f"{where}/{key}: missing"])
        ]
    return [] if recorded == now else [f"{where}: was {recorded!r}, is {now!r}"]


def changed(recorded: dict, changes: dict) -> dict:
    """Copy a record with the values that `changes` has, by their paths, each of which has to be there."""
    copy = json.loads(json.dumps(recorded))
    for path, value in changes.items():
        *parents, key = path.strip("/").split("/")
        place = copy
        for parent in parents:
            place = place[parent]
        assert place[key] != value, f"{path} is {value!r} already"
        place[key] = value
    return copy


def test_something_lost_or_changed_is_found():
    assert lost({"a": {"b": 1}}, {"a": {"b": 1, "c": 2}}) == []
    assert lost({"a": {"b": 1}, "d": 2}, {"a": {"b": 2}}) == ["/a/b: was 1, is 2", "/d: missing"]


def test_more_may_be_allowed_and_less_be_asked_for():
    option = {"spellings": ["--a"], "required": True}
    assert lost({"--a": option}, {"--a": {"spellings": ["--a", "-a"], "required": False}}) == []
    assert lost({"--a": option}, {"--a": {"spellings": ["-a"], "required": True}}) == ["/--a/spellings: --a is missing"]
    assert lost({"choices": ["a", "b"], "range": "a, b"}, {"choices": ["b", "c", "a"], "range": "b, c, a"}) == []
    assert lost({"choices": ["a"], "range": "a, b"}, {"choices": ["b"], "range": "b, c"}) == [
        "/choices: a is missing",
        "/range: a is missing",
    ]
    option["required"] = False
    assert lost({"--a": option}, {"--a": {"spellings": ["--a"], "required": True}}) == [
        "/--a/required: was False, is True"
    ]


def test_command_line_options_are_kept(surface):
    assert lost(RECORDED["command_line"], surface.command_line()) == []


def test_weight_formats_are_kept(surface):
    recorded, now = json.loads(json.dumps(RECORDED["weight_formats"])), surface.weight_formats()
    for old, new in REPLACED.items():
        assert recorded["shipped"].pop(old) and new in now["shipped"]
    assert lost(recorded, now) == []


def test_ros_parameters_topics_and_services_are_kept(tmp_path):
    pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")
    now = tmp_path / "now.json"
    subprocess.run([sys.executable, HERE / "surface.py", now], check=True, capture_output=True, timeout=120)
    surface = json.loads(now.read_text(encoding="utf-8"))
    recorded = changed(RECORDED["parameters"], CHANGED)
    assert lost(recorded, surface["parameters"]) == []
    assert lost(RECORDED["topics_and_services"], surface["topics_and_services"]) == []
