"""Compressed video as it comes in messages, one coded frame each: H.264 and H.265, decoded by FFmpeg through PyAV."""

from __future__ import annotations

from typing import NamedTuple

import av
import numpy as np

from vidseg_core.data.encodings import UnsupportedEncoding
from vidseg_core.data.frame_numbers import FrameNumbers
from vidseg_core.data.video import colour_matrix, to_rgb
from vidseg_core.data.wire import PacketView, WireError

VIDEO_FORMATS = ("h264", "h265")
"""The formats of packets that are decoded."""

# FFMPEGPacket names the codec and then formats of pixels, of old the encoder: h264;yuv420p;bgr8;bgr8, hevc_nvenc.
_CODECS = {"264": "h264", "avc": "h264", "265": "hevc", "hevc": "hevc"}
_START_CODES = b"\0\0\1", b"\0\0\0\1"
_MOST_DELAYED = 16  # frames, the most that a decoder of either codec puts in order
_MOST_PIXELS = 1 << 25  # 8192 x 4096


class Picture(NamedTuple):
    """A decoded frame.

    Attributes:
        packet: that it belongs to, with its stamp and frame_id.
        frame: as it is decoded, so that one that nobody looks at costs no conversion.
    """

    packet: PacketView
    frame: av.VideoFrame

    @property
    def stamp_ns(self) -> int:
        """Stamp of its packet in nanoseconds."""
        return self.packet.stamp_ns

    @property
    def assumed_matrix(self) -> str | None:
        """The colour matrix by which it is converted though the video names none; None if it does."""
        return colour_matrix(self.frame)

    def to_rgb(self) -> np.ndarray:
        """Convert to H x W x 3, uint8, RGB, contiguous, by the colour matrix as in video files."""
        return to_rgb(self.frame)


class PacketDecoder:
    """Decodes the packets of one camera, each as soon as the stream allows.

    Pictures come in the order in which they are shown, each with its own packet; where packets are stamped in
    the order in which they are decoded, with the packets in turn. No picture comes that was made from a
    frame that is missing or found to be damaged: from there on, as from the beginning, all is lost until the next key
    frame. What is missing is told by the numbers in the stream, which begin again with each key frame, and by the
    stamps: after a pause of half the time between two key frames one may be missing, and the next is waited for.

    Attributes:
        lost: packets so far that gave no picture because of what they depend on.
        repeated: packets so far that were the one before them once more, and gave nothing.
        waits: whether nothing can come before a key frame does.
    """

    def __init__(self) -> None:
        self.lost = self.repeated = 0
        self.waits = True
        self._last = b""
        self._codec = ""
        self._decoder: av.VideoCodecContext | None = None
        self._numbers = FrameNumbers()
        self._serial = 0
        self._pending: dict[int, PacketView] = {}  # whose frames have not come, by serial number
        self._held: list[tuple[int, Picture]] = []  # until it is known that they are made from nothing that is damaged
        self._ready: list[Picture] = []
        self._newest_ns: int | None = None
        self._ascending = True
        self._longest_step_ns = 0
        self._key_ns: int | None = None
        self._key_step_ns: int | None = None  # longest time between two key frames with nothing lost between

    def feed(self, packet: PacketView) -> list[Picture]:
        """Decode one packet. Returns the pictures that are complete now: its own, earlier ones, or none.

        Raises:
            UnsupportedEncoding: the format is none of `VIDEO_FORMATS`.
            WireError: the packet is damaged. What was complete before it comes with the next.
        """
        codec, data = _codec_of(packet.format), packet.data.tobytes()
        if not data.startswith(_START_CODES):
            raise WireError(f"expected {codec} as NAL units behind start codes, got {data[:4].hex(' ') or 'no data'}")
        if data == self._last:
            self.repeated += 1
            return []
        self._last = data
        if codec != self._codec:
            self._restart(self._serial)
            self._codec, self._decoder = codec, _decoder(codec)
        follows = codec != "h264" or self._numbers.follows(data)
        if not follows or self._comes_long_after(packet.stamp_ns):
            self._restart(self._serial)
        self._decode(packet, data)
        ready, self._ready = self._ready, []
        return ready

    def finish(self) -> list[Picture]:
        """Return the pictures that the decoder still holds. The next packet begins a new stream."""
        self._restart(self._serial)
        ready, self._ready = self._ready, []
        return ready

    def _decode(self, packet: PacketView, data: bytes) -> None:
        serial, self._serial = self._serial, self._serial + 1
        newest_ns = self._newest_ns
        self._ascending &= newest_ns is None or packet.stamp_ns > newest_ns
        self._longest_step_ns = max(self._longest_step_ns, packet.stamp_ns - (newest_ns or packet.stamp_ns))
        self._newest_ns = packet.stamp_ns if newest_ns is None else max(newest_ns, packet.stamp_ns)
        self._pending[serial] = packet
        coded = av.Packet(data)
        coded.pts = serial
        try:
            frames = self._decoder.decode(coded)
        except av.FFmpegError as error:
            del self._pending[serial]
            if self.waits:  # what says how to decode comes with the key frame
                self.lost += 1
                return
            self._restart(serial)
            raise WireError(f"the packet cannot be decoded: {error.strerror}") from error
        damaged = self._hold(frames)
        if damaged is not None:
            self._restart(damaged)
            raise WireError("a packet is damaged")
        self._release()

    def _hold(self, frames: list[av.VideoFrame]) -> int | None:
        """Keep what the decoder gave. Returns the serial number of the first damaged frame, if there is one."""
        for frame in frames:
            if self.waits:
                self._lose_before(frame.pts)
                self.waits = False
            if not self._pending:
                continue
            serial = frame.pts if frame.pts in self._pending else min(self._pending)
            if self._ascending and self._decoder.has_b_frames:  # stamped as decoded: stamps in turn
                first = min(self._pending, key=lambda one: self._pending[one].stamp)
                self._pending[first], self._pending[serial] = self._pending[serial], self._pending[first]
            packet = self._pending.pop(serial)
            if frame.is_corrupt:
                return serial
            if frame.key_frame:
                self._note_key_frame(packet.stamp_ns)
            self._held.append((serial, Picture(packet, frame)))
        return None

    def _release(self) -> None:
        """Let those go that cannot be made from a frame whose damage is not known yet."""
        if not self._decoder.has_b_frames and self._pending:
            self._lose_before(self._serial)
            self.waits = True
        self._lose_before(self._serial - _MOST_DELAYED)
        # FFmpeg's decoder of H.265 gives nothing that is made from damaged frames.
        undecided = self._serial if self._codec == "hevc" else min(self._pending, default=self._serial)
        while self._held and self._held[0][0] < undecided:
            self._ready.append(self._held.pop(0)[1])

    def _restart(self, bad: int) -> None:
        """Lose all from the packet of this serial number on; what was shown before is complete."""
        if self._decoder is None:
            return
        try:
            damaged = self._hold(self._decoder.decode(None))
        except av.FFmpegError:
            damaged = None
        self._decoder.flush_buffers()
        if damaged is not None:
            bad = min(bad, damaged)
            self.lost += 1
        good = [picture for serial, picture in self._held if serial < bad]
        self.lost += len(self._held) - len(good) + len(self._pending)
        self._ready += good
        self._held, self._pending = [], {}
        self._newest_ns, self._key_ns, self._ascending, self.waits = None, None, True, True

    def _comes_long_after(self, stamp_ns: int) -> bool:
        """Tell if the pause before a packet is so long that a key frame may be missing."""
        if self._newest_ns is None or not self._key_step_ns:
            return False
        return stamp_ns - self._newest_ns > max(self._key_step_ns / 2, self._longest_step_ns)

    def _note_key_frame(self, stamp_ns: int) -> None:
        if self._key_ns is not None:
            self._key_step_ns = max(self._key_step_ns or 0, stamp_ns - self._key_ns)
        self._key_ns = stamp_ns

    def _lose_before(self, serial: int) -> None:
        for one in [one for one in self._pending if one < serial]:
            del self._pending[one]
            self.lost += 1


def _codec_of(form: str) -> str:
    name = form.partition(";")[0].lower()
    for part, codec in _CODECS.items():
        if part in name:
            return codec
    raise UnsupportedEncoding(form, VIDEO_FORMATS)


def _decoder(codec: str) -> av.VideoCodecContext:
    decoder = av.CodecContext.create(codec, "r")
    decoder.thread_count = 1  # more would give each frame some packets later
    decoder.options = {"max_pixels": str(_MOST_PIXELS)}
    return decoder
