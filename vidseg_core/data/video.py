"""Frames of a video file, decoded by FFmpeg's libraries through PyAV."""

from __future__ import annotations

from collections import deque
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
_RECORDS_NO_TIMES = 0x80  # AVFMT_NOTIMESTAMPS: raw streams, for which demuxers assume 25 Hz
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC: a cover, which players do not play


class VideoSource(Source):
    """The first video stream of a file.

    Stamps are the file's own presentation times. `rate_hz` replaces them by i / rate_hz; so does the stream's nominal
    rate in formats that record no times (raw H.264). Turning and mirroring that the file asks for are applied.
    A file that ends before the duration it promises, or a frame that arrives damaged, is an error in its place.
    """

    def __init__(self, path: Path, *, rate_hz: float | None = None, skip_bad: bool = False):
        self._path = path
        self._stamp_by_rate = rate_hz is not None
        with _open(path) as container:
            stream = _video_stream(container, path)
            nominal = _nominal_rate(container, stream)
            num_frames = stream.frames or None
        rate_hz = float(nominal or DEFAULT_RATE_HZ) if rate_hz is None else rate_hz
        super().__init__(path.stem, rate_hz, num_frames, skip_bad)

    def _read(self) -> Iterator[tuple[str, Frame | SourceError]]:
        with _open(self._path) as container:
            stream = _video_stream(container, self._path)
            stream.thread_type = "AUTO"
            index, end_s = 0, Fraction(0)
            for decoded, time_s in _decode(container, stream):
                name = f"{index:06d}"
                if isinstance(decoded, av.FFmpegError):
                    yield name, SourceError(f"{self._path}: frame {name} cannot be decoded: {decoded.strerror}")
                else:
                    yield name, self._frame(index, name, decoded, time_s)
                    end_s = end_s if time_s is None else time_s + 1 / Fraction(self.rate_hz)
                index += 1
            missing_s = (_promised_end_s(container, stream) or 0) - end_s
            # What an edit list cuts is counted among the frames but not in the duration, so both must fall short.
            if missing_s > _TOLERATED_S or (index < stream.frames and missing_s > 1 / Fraction(2 * self.rate_hz)):
                yield f"{index:06d}", SourceError(f"{self._path}: ends early, {float(missing_s):.2f} s are missing")

    def _frame(self, index: int, name: str, decoded: av.VideoFrame, time_s: Fraction | None) -> Frame | SourceError:
        where = f"{self._path}: frame {name}"
        if decoded.is_corrupt:
            return SourceError(f"{where} is damaged")
        image = _upright(decoded.to_ndarray(format="rgb24"), decoded)
        try:
            checked_size(image, where)
        except SourceError as error:
            return error
        return Frame(image, self._stamp_ns(index, time_s), stream=self.name, name=name)

    def _stamp_ns(self, index: int, time_s: Fraction | None) -> int:
        if self._stamp_by_rate or time_s is None:
            return round(index * 1e9 / self.rate_hz)
        return round(time_s * 10**9)


def _open(path: Path) -> av.container.InputContainer:
    try:
        return av.open(str(path))
    except (av.FFmpegError, OSError) as error:
        raise SourceError(f"{path}: not a video file that can be opened: {error.strerror}") from error


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    streams = [stream for stream in container.streams.video if not int(stream.disposition) & _ATTACHED_PICTURE]
    if not streams:
        raise SourceError(f"{path}: expected a video stream, there is none")
    return streams[0]


def _nominal_rate(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    rates = [stream.average_rate, stream.guessed_rate, stream.base_rate]
    if container.format.flags & _RECORDS_NO_TIMES:  # the guess goes by what the coded stream itself says
        rates.insert(0, stream.guessed_rate)
    return next((rate for rate in rates if rate), None)


def _upright(image: np.ndarray, decoded: av.VideoFrame) -> np.ndarray:
    """The image as players show it, by the display matrix; of the angles in it only quarter turns are applied.

    The matrix sends a stored pixel (x, y) to (a x + c y, b x + d y).
    """
    matrix = next((data for data in decoded.side_data if data.type.name == "DISPLAYMATRIX"), None)
    if matrix is None:
        return image
    (a, b), (c, d) = np.frombuffer(bytes(matrix), np.int32).reshape(3, 3)[:2, :2].tolist()
    if abs(b) > abs(a):
        image, a, d = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def _decode(
    container: av.container.InputContainer, stream: av.VideoStream
) -> Iterator[tuple[av.VideoFrame | av.FFmpegError, Fraction | None]]:
    """The frames with their times in seconds; in the place of one that cannot be decoded, the error."""
    # AVI records when frames are decoded, which for B-frames is another order; the times in turn are those of the
    # frames in turn, as the decoder gives them.
    in_turn: deque[int] | None = deque() if container.format.name == "avi" else None
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if in_turn is not None and packet is not None and packet.size and packet.dts is not None:
                in_turn.append(packet.dts)
            decoded = packet.decode() if packet is not None else None
        except av.FFmpegError as error:
            if in_turn:
                in_turn.popleft()
            yield error, None
            continue
        if decoded is None:
            return
        for frame in decoded:
            ticks = in_turn.popleft() if in_turn else frame.pts
            yield frame, None if ticks is None else ticks * stream.time_base


def _promised_end_s(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    if stream.duration is not None:
        return (stream.start_time or 0) * stream.time_base + stream.duration * stream.time_base
    if container.duration is not None and len(container.streams) == 1:
        # Matroska and WebM say where they end, others how long they are.
        begin = 0 if "matroska" in container.format.name else container.start_time or 0
        return Fraction(begin + container.duration, av.time_base)
    return None
