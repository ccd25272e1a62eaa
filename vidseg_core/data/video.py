"""Frames of a video file, decoded by FFmpeg's libraries through PyAV."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from typing import NamedTuple

import av
import numpy as np

from vidseg_core.data.file_end import is_whole
from vidseg_core.data.source import DEFAULT_RATE_HZ, Source, checked_size
from vidseg_core.errors import SourceError
from vidseg_core.frame import Frame

# Where a container does not count its frames its duration is all there is, and that is often rounded.
_TOLERATED_S = Fraction(1, 5)
_SAY_WHERE_THEY_END = ("matroska,webm", "asf", "nut")  # others how long they are
_RECORDS_NO_TIMES = 0x80  # AVFMT_NOTIMESTAMPS: raw streams, for which demuxers assume 25 Hz
_ATTACHED_PICTURE = 0x400  # AV_DISPOSITION_ATTACHED_PIC: a cover, which players do not play
_PICTURES = {"mjpeg", "png", "bmp", "gif", "tiff", "webp"}  # a track of these before one of video is a cover, too
_SAMPLE = 20  # packets by which an average rate is checked: a last frame that is shown long makes it too low
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED
_HD_LINES = 720

log = logging.getLogger(__name__)


class Decoded(NamedTuple):
    """A frame as it comes from the decoder, or the error in its place; its time and duration in seconds, if known."""

    frame: av.VideoFrame | av.FFmpegError
    time_s: Fraction | None = None
    duration_s: Fraction | None = None


class VideoSource(Source):
    """The first video stream of a file; a cover picture is none.

    Stamps are the file's own presentation times. `rate_hz` replaces them by i / rate_hz; so does the stream's nominal
    rate in formats that record no times (raw H.264). Turning and mirroring that the file asks for are applied. Colours
    are converted by the matrix that the file names; which one is taken where it names none is logged once (see
    `colour_matrix`). A file that ends before the duration it promises, or a damaged frame, is an error in its place.
    """

    def __init__(self, path: Path, *, rate_hz: float | None = None, skip_bad: bool = False):
        self._path = path
        self._stamp_by_rate = rate_hz is not None
        with _open(path) as container:
            stream = _video_stream(container, path)
            self._stamp_by_rate |= bool(container.format.flags & _RECORDS_NO_TIMES)
            num_frames = stream.frames or None
            nominal = _nominal_rate(container, stream)
        self._matrix_told = False
        rate_hz = float(nominal or DEFAULT_RATE_HZ) if rate_hz is None else rate_hz
        super().__init__(path.stem, rate_hz, num_frames, skip_bad)

    def _read(self) -> Iterator[tuple[str, Frame | SourceError]]:
        with _open(self._path) as container:
            stream = _video_stream(container, self._path)
            stream.thread_type = "AUTO"
            index, end_s = 0, Fraction(0)
            for decoded in _decode(container, stream):
                name = f"{index:06d}"
                if isinstance(decoded.frame, av.FFmpegError):
                    yield name, SourceError(f"{self._path}: frame {name} cannot be decoded: {decoded.frame.strerror}")
                else:
                    yield name, self._frame(index, name, decoded.frame, decoded.time_s)
                    if decoded.time_s is not None:
                        # The latest, since times may begin anew, as where files were joined.
                        end_s = max(end_s, decoded.time_s + (decoded.duration_s or 1 / Fraction(self.rate_hz)))
                index += 1
            missing_s = (_promised_end_s(container, stream) or 0) - end_s
            # What an edit list cuts is counted among the frames but not in the duration, so both must fall short.
            tolerated_s = 1 / Fraction(2 * self.rate_hz) if stream.frames else _TOLERATED_S
            if 0 < stream.frames <= index:
                return
            whole = is_whole(self._path, container.format.name)
            if missing_s > tolerated_s and not whole:
                yield f"{index:06d}", SourceError(f"{self._path}: ends early, {float(missing_s):.2f} s are missing")
            elif whole is False:  # of AVI, FFmpeg takes the duration from what there is
                yield f"{index:06d}", SourceError(f"{self._path}: ends early, the file is cut off")

    def _frame(self, index: int, name: str, decoded: av.VideoFrame, time_s: Fraction | None) -> Frame | SourceError:
        where = f"{self._path}: frame {name}"
        if decoded.is_corrupt:
            return SourceError(f"{where} is damaged")
        matrix = colour_matrix(decoded)
        if matrix is not None and not self._matrix_told:
            self._matrix_told = True
            log.info(
                "%s: names no colour matrix; %s is taken, as usual for %d lines", self._path, matrix, decoded.height
            )
        image = _upright(to_rgb(decoded), decoded)
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
        raise SourceError(f"{path}: no recording, and not a video file that can be opened: {error.strerror}") from error


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    streams = [stream for stream in container.streams.video if not _is_attached(stream)]
    if not streams:
        raise SourceError(f"{path}: expected a video stream, there is none")
    return next((stream for stream in streams if not _is_picture(stream)), streams[0])


def _is_attached(stream: av.stream.Stream) -> bool:
    return stream.type == "attachment" or bool(int(stream.disposition) & _ATTACHED_PICTURE)


def _is_picture(stream: av.stream.Stream) -> bool:
    return stream.type == "video" and stream.codec_context.codec.name in _PICTURES


def _nominal_rate(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    rates = [stream.average_rate, stream.guessed_rate, stream.base_rate]
    if container.format.flags & _RECORDS_NO_TIMES:  # the guess goes by what the coded stream itself says
        rates.insert(0, stream.guessed_rate)
    rate = next((rate for rate in rates if rate), None)
    step_s = _usual_step_s(container, stream)
    # Times are rounded, to milliseconds in Matroska, so the average is better unless it is far off.
    return rate if rate is None or step_s is None or Fraction(4, 5) < rate * step_s < Fraction(5, 4) else 1 / step_s


def _usual_step_s(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    """The median time between the first frames; None where that is not known. Packets are read."""
    if container.format.flags & _RECORDS_NO_TIMES:
        return None
    try:
        times = sorted({packet.pts for packet in islice(container.demux(stream), _SAMPLE) if packet.pts is not None})
    except av.FFmpegError:
        return None  # whoever decodes is told
    steps = [after - before for before, after in pairwise(times)]
    return median(steps) * stream.time_base if steps else None


def to_rgb(decoded: av.VideoFrame) -> np.ndarray:
    """Convert to H x W x 3, uint8, RGB, by the frame's own matrix and range, else by `colour_matrix`."""
    if colour_matrix(decoded) == "BT.709":
        decoded = decoded.reformat(format="rgb24", src_colorspace="ITU709")
    return decoded.to_ndarray(format="rgb24")


def colour_matrix(decoded: av.VideoFrame) -> str | None:
    """Choose the matrix of a frame that names none, as players do: by its lines, as stored.

    Returns:
        `BT.709` for 720 lines and more, `BT.601` for fewer; None if the frame names one, or is RGB or grey.
    """
    if int(decoded.colorspace) != _UNSPECIFIED or decoded.format.is_rgb or len(decoded.format.components) < 3:
        return None
    return "BT.709" if decoded.height >= _HD_LINES else "BT.601"


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


def _decode(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[Decoded]:
    """The frames in the order of their times; in the place of one that cannot be decoded, the error."""
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
            yield Decoded(error)
            continue
        if decoded is None:
            return
        for frame in decoded:
            ticks = in_turn.popleft() if in_turn else frame.pts
            yield Decoded(
                frame,
                None if ticks is None else ticks * stream.time_base,
                frame.duration * stream.time_base if frame.duration else None,
            )


def _promised_end_s(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    says_end = container.format.name in _SAY_WHERE_THEY_END
    if stream.duration is not None:
        return ((0 if says_end else stream.start_time or 0) + stream.duration) * stream.time_base
    others = [one for one in container.streams if one is not stream and not _is_attached(one) and not _is_picture(one)]
    if container.duration is not None and not others:
        return Fraction((0 if says_end else container.start_time or 0) + container.duration, av.time_base)
    return None
