import numpy as np
import pytest

from vidseg_core.classes import load_classes
from vidseg_core.errors import ConfigError
from vidseg_core.evaluation.figures.tiles import contact_sheet, flow_colors, tile
from vidseg_core.street import Street, StreetConfig


def test_flow_colours():
    flow = np.array([[(0, 0), (2, 0), (0, 2), (-9, 0)]], np.float32)
    colors = flow_colors(flow, largest=2.0)
    np.testing.assert_array_equal(colors[0, :2], [(255, 255, 255), (255, 0, 0)])
    np.testing.assert_allclose(colors[0, 2], (128, 255, 0), atol=1)
    np.testing.assert_array_equal(colors[0, 3], (0, 255, 255))
    assert (flow_colors(np.zeros((3, 4, 2))) == 255).all()


def test_flow_colours_refuse_what_is_no_flow():
    with pytest.raises(ValueError, match="H x W x 2"):
        flow_colors(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="above 0"):
        flow_colors(np.zeros((3, 4, 2)), largest=0.0)


def test_tiles():
    black = np.zeros((2, 3, 3), np.uint8)
    out = tile([[black, black + 7], [black + 9, black]], gap=1)
    assert out.shape == (5, 7, 3)
    assert (out[2] == 255).all() and (out[:, 3] == 255).all()
    assert (out[:2, 4:] == 7).all() and (out[3:, :3] == 9).all()


@pytest.mark.parametrize("rows", [[], [[]], [[np.zeros((2, 2, 3))], []], [[np.zeros((2, 2, 3)), np.zeros((2, 3, 3))]]])
def test_uneven_tiles_are_refused(rows):
    with pytest.raises(ValueError, match="expected rows"):
        tile(rows)


def test_contact_sheet():
    sheet = contact_sheet([2, 3], [4], (320, 240))
    assert sheet.shape == (2 * 240 + 4, 3 * 320 + 8, 3)
    frame = Street(StreetConfig(2, 320, 240, num_frames=5)).render(4)
    np.testing.assert_array_equal(sheet[:240, :320], frame.image)
    np.testing.assert_array_equal(sheet[:240, 324:644], load_classes("camvid").lut[frame.labels])


def test_contact_sheet_refuses():
    with pytest.raises(ValueError, match="from 1"):
        contact_sheet([1], [0])
    with pytest.raises(ConfigError, match="seed"):
        contact_sheet([-1], [1])
