"""Frames of a video file, decoded by FFmpeg's libraries through PyAV."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from vidseg_core.data.source import DEFAULT_RATE_HZ, Source, checked_size
from vidseg_core.errors import SourceError
from vidseg_core.frame import Frame

# Where a container does not count its frames its duration is all there is, and that is often rounded.
_TOLERATED_S = Fraction(1, 5)


class VideoSource(Source):
    """The first video stream of a file.

    Stamps are the file's own presentation times. `rate_hz` replaces them by i / rate_hz; so does the stream's nominal
    rate in formats that record no times (raw H.264). Rotation that the file asks for is applied.
    A file that ends before the duration it promises, or a frame that arrives damaged, is an error in its place.
    """

    def __init__(self, path: Path, *, rate_hz: float | None = None, skip_bad: bool = False):
        self._path = path
        self._stamp_by_rate = rate_hz is not None
        with _open(path) as container:
            stream = _video_stream(container, path)
            nominal = stream.average_rate or stream.guessed_rate or stream.base_rate
            num_frames = stream.frames or None
        rate_hz = float(nominal or DEFAULT_RATE_HZ) if rate_hz is None else rate_hz
        super().__init__(path.stem, rate_hz, num_frames, skip_bad)

    def _read(self) -> Iterator[tuple[str, Frame | SourceError]]:
        with _open(self._path) as container:
            stream = _video_stream(container, self._path)
            stream.thread_type = "AUTO"
            index, end_s = 0, Fraction(0)
            for decoded in _decode(container, stream):
                name = f"{index:06d}"
                if isinstance(decoded, av.FFmpegError):
                    yield name, SourceError(f"{self._path}: frame {name} cannot be decoded: {decoded.strerror}")
                else:
                    yield name, self._frame(index, name, decoded)
                    end_s = _end_s(decoded, self.rate_hz) or end_s
                index += 1
            missing_s = (_promised_end_s(container, stream) or 0) - end_s
            # What an edit list cuts is counted among the frames but not in the duration, so both must fall short.
            if missing_s > _TOLERATED_S or (index < stream.frames and missing_s > 1 / Fraction(2 * self.rate_hz)):
                yield f"{index:06d}", SourceError(f"{self._path}: ends early, {float(missing_s):.2f} s are missing")

    def _frame(self, index: int, name: str, decoded: av.VideoFrame) -> Frame | SourceError:
        where = f"{self._path}: frame {name}"
        if decoded.is_corrupt:
            return SourceError(f"{where} is damaged")
        image = decoded.to_ndarray(format="rgb24")
        if decoded.rotation:
            image = np.ascontiguousarray(np.rot90(image, round(decoded.rotation / 90)))
        try:
            checked_size(image, where)
        except SourceError as error:
            return error
        return Frame(image, self._stamp_ns(index, decoded), stream=self.name, name=name)

    def _stamp_ns(self, index: int, decoded: av.VideoFrame) -> int:
        if self._stamp_by_rate or decoded.pts is None:
            return round(index * 1e9 / self.rate_hz)
        return round(decoded.pts * decoded.time_base * 10**9)


def _open(path: Path) -> av.container.InputContainer:
    try:
        return av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise SourceError(f"{path}: not a video file that can be opened: {error.strerror}") from error


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    if not container.streams.video:
        raise SourceError(f"{path}: expected a video stream, there is none")
    return container.streams.video[0]


def _decode(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame | av.FFmpegError]:
    """The frames; in the place of one that cannot be decoded, the error."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            decoded = packet.decode() if packet is not None else None
        except av.FFmpegError as error:
            yield error
            continue
        if decoded is None:
            return
        yield from decoded


def _end_s(decoded: av.VideoFrame, rate_hz: float) -> Fraction | None:
    return None if decoded.pts is None else decoded.pts * decoded.time_base + 1 / Fraction(rate_hz)


def _promised_end_s(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    if stream.duration is not None:
        return (stream.start_time or 0) * stream.time_base + stream.duration * stream.time_base
    if container.duration is not None and len(container.streams) == 1:
        return Fraction((container.start_time or 0) + container.duration, av.time_base)
    return None
