from fractions import Fraction

import av
import numpy as np
import pytest

from vidseg_core.data.file_end import is_whole
from vidseg_core.data.open import open_source
from vidseg_core.errors import SourceError

SIZE = (96, 128)
CODECS = {"avi": ("mpeg4", "avi"), "wmv": ("wmv2", "asf"), "flv": ("libx264", "flv")}


def write(path, codec, times=range(30), last=1):
    """Frames at the given times in units of 1/25 s; the last is shown for `last` of them."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": "0"} if codec == "libx264" else {"b": "4000000"})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        frames = []
        for time in times:
            image = np.random.default_rng(time).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            frames.append(frame)
        for packet in [packet for frame in (*frames, None) for packet in stream.encode(frame)]:
            packet.duration = last if packet.pts == max(times) else 1
            container.mux(packet)
    return path


@pytest.mark.parametrize("suffix", CODECS)
def test_the_structure_says_whether_a_file_is_whole(tmp_path, suffix):
    codec, form = CODECS[suffix]
    path = write(tmp_path / f"v.{suffix}", codec)
    data = path.read_bytes()
    assert is_whole(path, form) is True and is_whole(path, "mov,mp4,m4a,3gp,3g2,mj2") is None
    for share in (0.3, 0.9):
        path.write_bytes(data[: int(share * len(data))])
        assert is_whole(path, form) is (None if suffix == "flv" else False)
    path.write_bytes(b"")
    assert is_whole(path, form) is None


def test_an_avi_that_its_recorder_did_not_finish_says_nothing(tmp_path):
    path = write(tmp_path / "v.avi", "mpeg4")
    data = bytearray(path.read_bytes())
    data[4:8] = bytes(4)
    path.write_bytes(data)
    assert is_whole(path, "avi") is None


def test_a_large_avi_has_several_chunks(tmp_path):
    path = tmp_path / "v.avi"
    chunks = b"RIFF\x05\0\0\0AVI x\0", b"RIFF\x06\0\0\0AVIXyz"
    path.write_bytes(b"".join(chunks))
    assert is_whole(path, "avi") is True
    path.write_bytes(b"".join(chunks)[:-3])
    assert is_whole(path, "avi") is False


@pytest.mark.parametrize("suffix", ["wmv", "flv"])
def test_a_last_frame_that_is_shown_long_is_no_missing_end(tmp_path, suffix):
    path = write(tmp_path / f"v.{suffix}", CODECS[suffix][0], last=125)
    stamps = [frame.stamp_ns for frame in open_source(path)]
    assert stamps == [40_000_000 * i for i in range(30)]


@pytest.mark.parametrize("last", [1, 20])
def test_frames_that_avi_repeats_at_the_end_are_not_missing(tmp_path, last):
    times = [*range(20), 25, 32, 39]
    path = write(tmp_path / "v.avi", "mpeg4", [*times, 39 + last])
    data = bytearray(path.read_bytes())
    assert [frame.stamp_ns for frame in open_source(path)] == [40_000_000 * i for i in (*times, 39 + last)]
    if last > 1:  # what encoders write for a frame that was dropped is an empty chunk; here the last one becomes such
        index = data.rfind(b"idx1")
        (length,) = (int.from_bytes(data[index + 4 : index + 8], "little"),)
        entry = index + 8 + length - 16
        offset = data.rfind(b"00dc", 0, index)
        size = int.from_bytes(data[offset + 4 : offset + 8], "little")
        data[offset : offset + 8] = b"00dc" + bytes(4)
        data[entry + 12 : entry + 16] = bytes(4)
        data[offset + 8 : offset + 12] = b"JUNK"
        data[offset + 12 : offset + 16] = (size + size % 2 - 8).to_bytes(4, "little")
        path.write_bytes(data)
        assert [frame.stamp_ns for frame in open_source(path)] == [40_000_000 * i for i in times]


@pytest.mark.parametrize("suffix", CODECS)
@pytest.mark.parametrize("share", [0.4, 0.8])
def test_a_file_that_is_cut_off_is_an_error(tmp_path, suffix, share):
    path = write(tmp_path / f"v.{suffix}", CODECS[suffix][0])
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(SourceError, match=rf"v.{suffix}: (ends early|frame \d+ )"):
        list(open_source(path))
