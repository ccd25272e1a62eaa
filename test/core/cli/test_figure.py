import argparse

import cv2
import numpy as np
import pytest

from vidseg_core.cli import figure
from vidseg_core.errors import ConfigError, SourceError


def draw(*arguments):
    parser = argparse.ArgumentParser()
    figure.add_arguments(parser)
    return figure.main(parser.parse_args([str(a) for a in arguments]))


def test_street(tmp_path, capsys):
    out = tmp_path / "street.png"
    assert draw("street", "--seeds", 5, "--frames", 1, 2, "--size", "320x240", "--out", out) == 0
    assert cv2.imread(str(out)).shape == (2 * 240 + 4, 3 * 320 + 8, 3)
    assert capsys.readouterr().out.strip() == str(out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "street.jpg"], "ending in .png"),
        (["--out", "street.png", "--frames", 0], "from 1"),
        (["--out", "street.png", "--size", "10x10"], "width"),
        (["--out", "street.png", "--seeds", -1], "seed"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        draw("street", *arguments)


def test_run(tmp_path):
    (tmp_path / "overlay").mkdir()
    for i in range(12):
        cv2.imwrite(str(tmp_path / "overlay" / f"f{i}.png"), np.full((90, 120, 3), 20 * i, np.uint8))
    out = tmp_path / "strip.png"
    assert draw("run", tmp_path, "--first", 8, "--count", 3, "--width", 80, "--out", out) == 0
    strip = cv2.imread(str(out))
    assert strip.shape == (60, 3 * 80 + 8, 3)
    assert [strip[30, x, 0] for x in (40, 124, 208)] == [160, 180, 200]
    with pytest.raises(SourceError, match="expected 13 pictures in overlay/, got 12"):
        draw("run", tmp_path, "--first", 8, "--out", out)
    with pytest.raises(ConfigError, match="--count: expected 1 or more, got 0"):
        draw("run", tmp_path, "--count", 0, "--out", out)
