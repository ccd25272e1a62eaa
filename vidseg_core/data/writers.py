"""Results on disk: an H.264 video, PNG files, JSON. What has been closed is complete, whatever happens afterwards."""

from __future__ import annotations

import json
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np

from vidseg_core.data.images import encode_png
from vidseg_core.errors import ConfigError

_MAX_RATE_DENOMINATOR = 1001
_TICKS = 90_000  # a second; all usual rates are whole numbers of them
_LONGEST_S = 1001  # MP4 stores durations in 32 bits
_COLOURS = "colorprim=bt709:transfer=bt709:colormatrix=bt709"  # said in the file, or players guess from the size


def output_folder(path: str | Path) -> Path:
    """Make the folder and those above it, and try to write in it: what cannot be stored need not be computed.

    Raises:
        ConfigError: it cannot be made or written in.
    """
    folder = Path(path)
    probe = folder / f".vidseg-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"{folder}: expected a folder that can be written: {error.strerror}") from error
    return folder


def write_json(path: Path, data: Any) -> None:
    """Write `data` as JSON; a reader sees the old file or the new one, never half of it."""
    _replace(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def write_labels(path: Path, labels: np.ndarray) -> None:
    """Write H x W uint8 ids as a PNG of one channel, lossless; a file of that name is there as a whole or not at all.

    Raises:
        ValueError: `labels` is not H x W of uint8.
    """
    _write_channel(path, labels, "labels")


def write_confidence(path: Path, levels: np.ndarray) -> None:
    """Write confidence, H x W uint8 where 255 is certain, as `write_labels` does ids.

    Raises:
        ValueError: `levels` is not H x W of uint8.
    """
    _write_channel(path, levels, "confidence")


def write_image(path: Path, image: np.ndarray) -> None:
    """Write an H x W x 3 uint8 RGB image as a PNG; a file of that name is there as a whole or not at all.

    Raises:
        ValueError: `image` is not H x W x 3 of uint8.
    """
    _check_rgb(image)
    _replace(path, encode_png(image))


class VideoWriter:
    """An MP4 file (H.264, yuv420p, index in front) that every browser plays. A context manager; `close()` completes it.

    The first frame decides the size; where it is odd, the last row or column is doubled, since yuv420p needs even
    sizes. Later frames of another size are scaled to it.

    Args:
        path: of the file, which is made with the first frame.
        rate_hz: nominal frame rate.
        crf: quality of x264, 0 (lossless) to 51.

    Raises:
        ConfigError: this FFmpeg has no H.264 encoder.
    """

    def __init__(self, path: str | Path, rate_hz: float, crf: int = 20):
        if "libx264" not in av.codecs_available:
            raise ConfigError(f"{path}: the installed PyAV has no H.264 encoder (libx264), so no video can be written")
        self._path = Path(path)
        slowest = Fraction(1, _MAX_RATE_DENOMINATOR)
        self._rate = max(Fraction(rate_hz).limit_denominator(_MAX_RATE_DENOMINATOR), slowest)
        self._crf = crf
        self._size: tuple[int, int] | None = None
        self._container: av.container.OutputContainer | None = None
        self._stream: av.VideoStream | None = None
        self._at_s = Fraction(0)
        self._last_tick: int | None = None

    def write(self, image: np.ndarray, step_ns: int | None = None) -> None:
        """Append one frame.

        Args:
            image: H x W x 3 uint8 RGB.
            step_ns: how long after the frame before it is shown, above 0; None: one period of the nominal rate.

        Raises:
            ValueError: `image` is not H x W x 3 of uint8.
            OSError: the file cannot be written.
        """
        _check_rgb(image)
        if self._container is None:
            self._open(image.shape[1], image.shape[0])
        frame = av.VideoFrame.from_ndarray(self._fitted(image), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.time_base, frame.pts = Fraction(1, _TICKS), self._next_tick(step_ns)
        frame.duration = round(_TICKS / self._rate)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what is still in the encoder and the index. Does nothing if no frame came, or the second time."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            container.mux(self._stream.encode(None))
        finally:
            container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _open(self, width: int, height: int) -> None:
        self._size = width, height
        self._container = av.open(str(self._path), "w", format="mp4", options={"movflags": "+faststart"})
        options = {"crf": str(self._crf), "preset": "veryfast", "x264-params": _COLOURS}
        self._stream = self._container.add_stream("libx264", rate=self._rate, options=options)
        self._stream.width, self._stream.height = width + width % 2, height + height % 2
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, _TICKS)

    def _next_tick(self, step_ns: int | None) -> int:
        if self._last_tick is None:
            self._last_tick = 0
        else:
            self._at_s += 1 / self._rate if step_ns is None else min(Fraction(step_ns, 10**9), _LONGEST_S)
            self._last_tick = max(round(self._at_s * _TICKS), self._last_tick + 1)
        return self._last_tick

    def _fitted(self, image: np.ndarray) -> np.ndarray:
        width, height = self._size
        if image.shape[:2] != (height, width):
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
        if width % 2 or height % 2:
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        return np.ascontiguousarray(image)


def _check_rgb(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"expected an image as H x W x 3 uint8, got {image.dtype} {image.shape}")


def _write_channel(path: Path, channel: np.ndarray, name: str) -> None:
    if channel.ndim != 2 or channel.dtype != np.uint8:
        raise ValueError(f"expected {name} as H x W uint8, got {channel.dtype} {channel.shape}")
    _replace(path, encode_png(channel))


def _replace(path: Path, data: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        os.replace(part, path)
    except OSError as error:  # a full disk does not say which file
        part.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error
