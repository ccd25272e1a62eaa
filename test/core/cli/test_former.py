"""What 0.1.0 wrote still works, and one line says what is written now."""

import pytest

from vidseg_core.cli.data_options import data_name
from vidseg_core.cli.main import build_parser
from vidseg_core.data.datasets import DataName
from vidseg_core.errors import ConfigError

REQUIRED = {
    "train segmenter": "--data camvid:a --out o",
    "train refine": "--data camvid:a --out o",
    "run": "a --out o",
    "replay": "a",
    "bench": "",
    "weights get": "a",
    "weights calibrate": "a b --data c",
    "evaluate": "--data street:",
}


def parsed(*words):
    arguments = " ".join(words).split()
    return build_parser(arguments).parse_args(arguments)


@pytest.mark.parametrize(
    ("command", "former", "now", "value"),
    [
        ("train segmenter", "--threads", "--num-threads", "3"),
        ("train refine", "--threads", "--num-threads", "3"),
        ("bench", "--threads", "--num-threads", "3"),
        ("bench", "--png", "--out", "a.png"),
        ("weights get", "--to", "--out", "b"),
        ("weights calibrate", "--scale", "--input-scale", "1.5"),
        ("run", "--scale", "--input-scale", "0.5"),
        ("run", "--threads", "--num-threads", "3"),
        ("replay", "--threads", "--num-threads", "3"),
        ("evaluate", "--scale", "--input-scale", "0.5 1"),
    ],
)
def test_former_spellings_of_options(command, former, now, value, capsys):
    name = now.removeprefix("--").replace("-", "_")
    given = getattr(parsed(command, REQUIRED[command], now, value), name)
    assert capsys.readouterr().err == ""
    assert given != getattr(parsed(command, REQUIRED[command]), name)
    assert getattr(parsed(command, REQUIRED[command], former, value), name) == given
    assert capsys.readouterr().err == f"vidseg: {former} is now written {now}\n"


@pytest.mark.parametrize("network", ["segmenter", "refine"])
def test_former_spellings_of_what_a_training_requires(network, capsys):
    now = parsed("train", network, "--data camvid:a@2 --data street:@1 --out o")
    assert capsys.readouterr().err == ""
    former = parsed("train", network, "--dataset camvid:a@2 --dataset street:@1 --output o")
    assert former.data == now.data == ["camvid:a@2", "street:@1"] and former.out == now.out
    assert capsys.readouterr().err.splitlines() == [
        "vidseg: --dataset is now written --data",
        "vidseg: --output is now written --out",
    ]


@pytest.mark.parametrize(
    ("given", "missing"), [("--data camvid:a", "--out"), ("--out o", "--data"), ("--dataset camvid:a", "--out")]
)
def test_a_training_asks_for_the_present_spelling(given, missing, capsys):
    with pytest.raises(SystemExit):
        parsed("train segmenter", given)
    error = capsys.readouterr().err.splitlines()[-1]
    assert missing in error and "required" in error and "--output" not in error


def test_help_shows_present_spellings_only(capsys):
    for command in ("train segmenter", "evaluate", "bench", "weights get"):
        with pytest.raises(SystemExit):
            parsed(command, "--help")
        text = capsys.readouterr().out
        assert "--out" in text
        for former in ("--output", "--dataset", "--split", "--threads", "--to ", "--png", "--camvid"):
            assert former not in text, command


def test_one_of_several_processes_gives_notice(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert parsed("bench --threads 3").num_threads == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("command", ["evaluate", "infer", "figure strip --out a.png", "figure sequence --out a.png"])
def test_former_names_of_data_sets(command, capsys):
    args = parsed(command, "--data camvid:CamVid:test")
    assert data_name(args) == DataName("camvid", "CamVid", "test")
    assert capsys.readouterr().err == ""
    args = parsed(command, "--dataset camvid --data CamVid --split test")
    assert data_name(args) == DataName("camvid", "CamVid", "test")
    assert capsys.readouterr().err == "vidseg: --dataset with --split is now written --data camvid:CamVid:test\n"
    assert data_name(parsed(command, "--dataset street --data seed=3")) == DataName("street", "seed=3")
    assert capsys.readouterr().err == "vidseg: --dataset is now written --data street:seed=3\n"
    with pytest.raises(ConfigError, match="data 'CamVid': expected KIND:WHERE"):
        data_name(parsed(command, "--data CamVid"))
