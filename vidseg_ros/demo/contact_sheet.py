"""A run on one page: pictures from its whole length, the truth below them, and what the colours mean."""

from __future__ import annotations

import cv2
import numpy as np

from vidseg_core.classes import ClassTable

CELL_WIDTH = 400
COLUMNS = 3
GAP = 8
LINE = 24
BACKGROUND, INK = 255, (40, 40, 40)
FONT = cv2.FONT_HERSHEY_SIMPLEX


def contact_sheet(cells: list[tuple[str, list[np.ndarray]]], classes: ClassTable) -> np.ndarray:
    """Draw the page, H x W x 3 uint8 RGB.

    Args:
        cells: at least one: a caption, and H x W x 3 uint8 RGB pictures to be stacked below it.
        classes: for the legend.
    """
    pages = [_cell(caption, pictures) for caption, pictures in cells]
    rows = [_row(pages[first : first + COLUMNS]) for first in range(0, len(pages), COLUMNS)]
    legend = _legend(classes, rows[0].shape[1])
    return np.ascontiguousarray(_framed(np.vstack([*rows, legend])))


def _cell(caption: str, pictures: list[np.ndarray]) -> np.ndarray:
    """CELL_WIDTH pixels wide, a gap at the right and below."""
    parts = [_blank(LINE, CELL_WIDTH)]
    _write(parts[0], caption, 0)
    for picture in pictures:
        height = max(1, round(picture.shape[0] * CELL_WIDTH / picture.shape[1]))
        parts += [cv2.resize(picture, (CELL_WIDTH, height), interpolation=cv2.INTER_AREA), _blank(GAP, CELL_WIDTH)]
    return np.hstack([column := np.vstack(parts), _blank(column.shape[0], GAP)])


def _row(cells: list[np.ndarray]) -> np.ndarray:
    """Side by side, as wide as a full row."""
    height = max(cell.shape[0] for cell in cells)
    filled = [np.vstack([cell, _blank(height - cell.shape[0], cell.shape[1])]) for cell in cells]
    missing = (COLUMNS - len(cells)) * (CELL_WIDTH + GAP)
    return np.hstack([*filled, _blank(height, missing)])


def _legend(classes: ClassTable, width: int) -> np.ndarray:
    """Name and colour of each class, in as many lines as they need."""
    lines, x = [_blank(LINE, width)], 0
    for name, color in zip(classes.names, classes.palette, strict=True):
        entry_width = LINE + cv2.getTextSize(name, FONT, 0.5, 1)[0][0] + 2 * GAP
        if x and x + entry_width > width:
            lines.append(_blank(LINE, width))
            x = 0
        lines[-1][GAP // 2 : -GAP // 2, x : x + LINE - GAP] = color
        _write(lines[-1], name, x + LINE)
        x += entry_width
    return np.vstack(lines)


def _framed(page: np.ndarray) -> np.ndarray:
    return cv2.copyMakeBorder(page, GAP, GAP, 2 * GAP, GAP, cv2.BORDER_CONSTANT, value=(BACKGROUND,) * 3)


def _blank(height: int, width: int) -> np.ndarray:
    return np.full((height, width, 3), BACKGROUND, np.uint8)


def _write(line: np.ndarray, text: str, x: int) -> None:
    cv2.putText(line, text, (x, LINE - GAP), FONT, 0.5, INK, 1, cv2.LINE_AA)
