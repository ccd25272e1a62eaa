"""sensor_msgs/CameraInfo of images at another size."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import CameraInfo


def image_size(info: CameraInfo) -> tuple[int, int]:
    """Return (H, W) of the images that come with a camera_info: its region of interest, binned."""
    height, width = info.roi.height or info.height, info.roi.width or info.width
    return height // max(info.binning_y, 1), width // max(info.binning_x, 1)


def of_image(info: CameraInfo) -> CameraInfo:
    """Describe the images themselves: without region of interest and binning, which are counted into K and P.

    Done as image_geometry does it: pixels of the region count from its corner, and binning divides their places.
    """
    height, width = image_size(info)
    return _changed(
        info,
        (height, width),
        (1 / max(info.binning_x, 1), 1 / max(info.binning_y, 1)),
        (-info.roi.x_offset / max(info.binning_x, 1), -info.roi.y_offset / max(info.binning_y, 1)),
    )


def resized(info: CameraInfo, size: tuple[int, int]) -> CameraInfo:
    """Describe the same view at another size, whose pixels cover equal parts of it: u' = (u + 0.5) w' / w - 0.5.

    Args:
        info: of an image, see `of_image`.
        size: (h, w).
    """
    sx, sy = size[1] / info.width, size[0] / info.height
    return _changed(info, size, (sx, sy), (0.5 * sx - 0.5, 0.5 * sy - 0.5))


def on_grid(info: CameraInfo, size: tuple[int, int]) -> CameraInfo:
    """Describe the same view on a grid whose outermost pixels lie on the image's: u' = u (w' - 1) / (w - 1).

    Args:
        info: of an image, see `of_image`.
        size: (h, w).
    """
    scales = (size[1] - 1) / max(info.width - 1, 1), (size[0] - 1) / max(info.height - 1, 1)
    return _changed(info, size, scales, (0.0, 0.0))


def projection(info: CameraInfo) -> np.ndarray:
    """Return 3 x 4, float64: from points in the camera's frame to pixels of rectified images.

    It is P, or K where P is empty, as it may be where the image was never distorted.
    """
    matrix = np.array(info.p, dtype=np.float64).reshape(3, 4)
    if matrix[0, 0] == 0.0:
        matrix = np.hstack([np.array(info.k, dtype=np.float64).reshape(3, 3), np.zeros((3, 1))])
    return matrix


def _changed(
    info: CameraInfo, size: tuple[int, int], scale: tuple[float, float], shift: tuple[float, float]
) -> CameraInfo:
    """Move every pixel (u, v) to `scale` (u, v) + `shift`."""
    change = np.array([[scale[0], 0.0, shift[0]], [0.0, scale[1], shift[1]], [0.0, 0.0, 1.0]])
    return CameraInfo(
        header=info.header,
        height=size[0],
        width=size[1],
        distortion_model=info.distortion_model,
        d=info.d,
        k=(change @ np.array(info.k).reshape(3, 3)).ravel(),
        r=info.r,
        p=(change @ np.array(info.p).reshape(3, 4)).ravel(),
    )
