"""Make labelled points of an image, its labels and its depth, and look at them from another place.

python examples/labelled_cloud.py street:seed=3,size=960x540,frames=13 12 cloud.png
"""

import sys

import cv2
import numpy as np

from vidseg_core import load_classes
from vidseg_core.kernels.points import Labelled, depth_points
from vidseg_core.street import Street, StreetConfig

AWAY = np.array([0.5, -3.0, -6.0])  # who looks, from the camera: metres to the right, down, forward
DOWN = np.radians(12)
DOT = 3  # pixels


def view(positions: np.ndarray, colours: np.ndarray, intrinsics: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw points, n x 3, in their colours as they look from above and behind; nearer ones hide others."""
    turn = np.array([[1, 0, 0], [0, np.cos(DOWN), -np.sin(DOWN)], [0, np.sin(DOWN), np.cos(DOWN)]])
    seen = (positions - AWAY) @ turn.T
    in_order = np.argsort(-seen[:, 2])
    seen, colours = seen[in_order], colours[in_order]
    u, v, _ = np.rint(intrinsics @ (seen / seen[:, 2:]).T).astype(int)
    picture = np.full((*size, 3), 255, np.uint8)
    for row in range(DOT):
        for column in range(DOT):
            inside = (v + row >= 0) & (v + row < size[0]) & (u + column >= 0) & (u + column < size[1])
            picture[v[inside] + row, u[inside] + column] = colours[inside]
    return picture


def main(spec: str, number: str, path: str) -> None:
    street = Street(StreetConfig.parse(spec))
    frame, depth, intrinsics = street.render(int(number)), street.depth(int(number)), street.intrinsics()
    labels = frame.labels  # the street's own; `stream.step(frame).labels` of an engine goes here
    projection = np.hstack([intrinsics, np.zeros((3, 1))])
    points = depth_points(Labelled(frame.image, labels, None), depth, projection).reshape(-1, 24)
    points = points[np.isfinite(points.view(np.float32)[:, 0])]  # all but the sky
    positions, ids = points.view(np.float32)[:, :3].astype(float), points.view(np.uint32)[:, 4]
    u, v, w = np.rint(intrinsics @ positions.T / positions[:, 2]).astype(int)
    print(f"{len(points)} points; {(ids == labels[v, u]).mean():.2%} have the label of the pixel that sees them")
    lut = load_classes("camvid").lut
    shown = [lut[ids], frame.image[v, u]]
    pictures = [frame.image, *(view(positions, colours, intrinsics, frame.size) for colours in shown)]
    cv2.imwrite(path, cv2.cvtColor(np.hstack(pictures), cv2.COLOR_RGB2BGR))


if __name__ == "__main__":
    main(*sys.argv[1:])
