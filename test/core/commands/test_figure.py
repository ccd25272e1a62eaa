import argparse

import cv2
import pytest

from vidseg_core.commands import figure
from vidseg_core.errors import ConfigError


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
