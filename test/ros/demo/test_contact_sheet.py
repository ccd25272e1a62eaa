import numpy as np

from vidseg_core.classes import load_classes
from vidseg_ros.demo.contact_sheet import contact_sheet

CLASSES = load_classes("camvid")


def picture(color, height=90, width=160):
    return np.full((height, width, 3), color, np.uint8)


def shows(page, color):
    """How many pixels of the page have a colour."""
    return int((page == np.array(color, np.uint8)).all(axis=-1).sum())


def test_pictures_and_legend_are_on_the_page():
    cells = [(f"{i} s", [picture((200, i, 0)), picture((0, i, 200))]) for i in range(4)]
    page = contact_sheet(cells, CLASSES)
    assert page.dtype == np.uint8 and page.ndim == 3 and page.flags.c_contiguous
    for i in range(4):
        # Scaled to 400 x 225 pixels.
        assert shows(page, (200, i, 0)) == shows(page, (0, i, 200)) == 400 * 225
    assert all(shows(page, color) >= 100 for color in CLASSES.palette)


def test_cells_may_differ_in_size():
    one = contact_sheet([("a", [picture((1, 2, 3))])], CLASSES)
    both = contact_sheet(
        [("a", [picture((1, 2, 3))]), ("b", [picture((4, 5, 6), 160, 90), picture((7, 8, 9))])], CLASSES
    )
    assert shows(one, (1, 2, 3)) == shows(both, (1, 2, 3)) == 400 * 225
    assert shows(both, (4, 5, 6)) == 400 * round(160 * 400 / 90) and both.shape[1] == one.shape[1]
