import struct
from fractions import Fraction

import av
import numpy as np
import pytest

from vidseg_core.data.open import open_source
from vidseg_core.data.writers import VideoWriter
from vidseg_core.errors import SourceError

SIZE = (96, 128)
NUM_FRAMES = 40


def picture(i):
    """A textured image that differs from frame to frame and is bright by 4 * i on average in its left half."""
    rng = np.random.default_rng(i)
    image = rng.integers(0, 60, (*SIZE, 3), dtype=np.uint8)
    image[:, : SIZE[1] // 2] = 4 * i
    return image


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "drive.mp4"
    with VideoWriter(path, rate_hz=25) as writer:
        for i in range(NUM_FRAMES):
            writer.write(picture(i))
    return path


def encode(path, pts, codec="libx264", rotation=0, image=picture, **options):
    """A file with frames at the given times in units of 1/1000 s."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for i, time in enumerate(pts):
            frame = av.VideoFrame.from_ndarray(image(i), format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_what_was_written_is_read_back(video):
    source = open_source(video)
    frames = list(source)
    assert (source.name, source.rate_hz, source.size) == ("drive", 25.0, (128, 96))
    assert len(source) == len(frames) == NUM_FRAMES
    assert [f.name for f in frames[:2]] == ["000000", "000001"]
    assert [f.stamp_ns for f in frames] == [i * 40_000_000 for i in range(NUM_FRAMES)]
    left = [float(f.image[:, 8:56].mean()) for f in frames]
    np.testing.assert_allclose(left, [4 * i for i in range(NUM_FRAMES)], atol=2)


def test_stamps_are_the_files_own_unless_a_rate_replaces_them(tmp_path):
    times = [0, 40, 80, 200, 210, 500]
    encode(tmp_path / "v.mkv", times)
    assert [f.stamp_ns for f in open_source(tmp_path / "v.mkv")] == [t * 10**6 for t in times]
    assert [f.stamp_ns for f in open_source(tmp_path / "v.mkv", rate_hz=10)] == [i * 10**8 for i in range(6)]


def test_formats_without_stamps_take_the_nominal_rate(tmp_path):
    encode(tmp_path / "v.h264", [40 * i for i in range(10)])
    source = open_source(tmp_path / "v.h264")
    assert source.num_frames is None
    assert [f.stamp_ns for f in source] == [40_000_000 * i for i in range(10)]


@pytest.mark.skipif(not hasattr(av.VideoStream, "set_display_rotation"), reason="this PyAV cannot write rotated video")
@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_in_the_file_is_applied(tmp_path, rotation):
    def upright(i):
        image = np.zeros((*SIZE, 3), np.uint8)
        image[: SIZE[0] // 2, : SIZE[1] // 2] = 200  # upper left
        return image

    encode(tmp_path / "v.mp4", [0, 40], rotation=rotation, image=upright)
    frame = next(iter(open_source(tmp_path / "v.mp4")))
    expected = np.rot90(upright(0), rotation // 90)
    assert frame.image.shape == expected.shape
    assert np.abs(frame.image.astype(int) - expected).mean() < 5


@pytest.mark.parametrize("share", [0.4, 0.97])
def test_a_truncated_file_gives_what_it_has_and_one_error(video, tmp_path, share):
    data = video.read_bytes()
    path = tmp_path / "half.mp4"
    path.write_bytes(data[: int(share * len(data))])
    seen = []
    with pytest.raises(SourceError, match=r"half.mp4: (ends early, [\d.]+ s are missing|frame \d+ is damaged)"):
        for frame in open_source(path):
            seen.append(frame)
    assert 0 < len(seen) < NUM_FRAMES
    left = [float(f.image[:, 8:56].mean()) for f in seen]
    np.testing.assert_allclose(left, [4 * i for i in range(len(seen))], atol=2)

    source = open_source(path, skip_bad=True)
    assert len(list(source)) >= len(seen)
    assert "half.mp4" in source.skipped[-1][1]


def test_a_matroska_file_says_how_long_it_should_be(tmp_path):
    encode(tmp_path / "v.mkv", [40 * i for i in range(NUM_FRAMES)])
    data = (tmp_path / "v.mkv").read_bytes()
    (tmp_path / "v.mkv").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="v.mkv: ends early"):
        list(open_source(tmp_path / "v.mkv"))


def test_damage_inside_is_an_error_or_skipped(tmp_path):
    encode(tmp_path / "v.ts", [40 * i for i in range(NUM_FRAMES)], bf="0", g="5")
    data = bytearray((tmp_path / "v.ts").read_bytes())
    middle = len(data) // 2
    data[middle : middle + 1500] = bytes(1500)
    (tmp_path / "v.ts").write_bytes(data)
    with pytest.raises(SourceError, match=r"v.ts: frame \d+"):
        list(open_source(tmp_path / "v.ts"))
    source = open_source(tmp_path / "v.ts", skip_bad=True)
    assert NUM_FRAMES // 2 < len(list(source)) < NUM_FRAMES
    assert source.skipped


def test_what_is_not_a_video(tmp_path, video):
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(SourceError, match="text.mp4: no recording, and not a video file that can be opened"):
        open_source(tmp_path / "text.mp4")
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(SourceError, match="empty.mp4: no recording, and not a video file that can be opened"):
        open_source(tmp_path / "empty.mp4")
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with pytest.raises(SourceError, match="sound.wav: expected a video stream, there is none"):
        open_source(tmp_path / "sound.wav")


def test_a_small_video_is_refused(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", 25) as writer:
        writer.write(np.zeros((48, 128, 3), np.uint8))
    with pytest.raises(SourceError, match=r"frame 000000: expected at least 64 x 64 pixels, got 128 x 48"):
        open_source(tmp_path / "v.mp4")


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".mp4", ".ts"])
def test_a_file_that_begins_late_is_complete(tmp_path, suffix):
    codec = "libvpx-vp9" if suffix == ".webm" else "libx264"
    encode(
        tmp_path / f"v{suffix}",
        [5000 + 40 * i for i in range(30)],
        codec,
        **({"bf": "0"} if codec == "libx264" else {}),
    )
    stamps = [frame.stamp_ns for frame in open_source(tmp_path / f"v{suffix}")]
    assert len(stamps) == 30 and set(np.diff(stamps)) == {40_000_000}
    assert suffix in (".mp4", ".ts") or stamps[0] == 5 * 10**9


def test_a_late_matroska_file_that_is_cut_short_is_an_error(tmp_path):
    encode(tmp_path / "v.mkv", [5000 + 40 * i for i in range(NUM_FRAMES)])
    data = (tmp_path / "v.mkv").read_bytes()
    (tmp_path / "v.mkv").write_bytes(data[: len(data) // 2])
    with pytest.raises(SourceError, match="v.mkv: ends early"):
        list(open_source(tmp_path / "v.mkv"))


def test_b_frames_in_avi_come_in_the_order_of_their_times(tmp_path):
    with av.open(str(tmp_path / "v.avi"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"bf": "3", "b_strategy": "0"})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for i in range(NUM_FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        container.mux(stream.encode(None))
    frames = list(open_source(tmp_path / "v.avi"))
    assert [frame.stamp_ns for frame in frames] == [40_000_000 * i for i in range(NUM_FRAMES)]
    left = [float(frame.image[:, 8:56].mean()) for frame in frames]
    np.testing.assert_allclose(left, [4 * i for i in range(NUM_FRAMES)], atol=2)


@pytest.mark.parametrize("rate", [15, 30, 50])
def test_a_raw_stream_has_the_rate_that_it_says(tmp_path, rate):
    with av.open(str(tmp_path / "v.h264"), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        for i in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        container.mux(stream.encode(None))
    source = open_source(tmp_path / "v.h264")
    assert source.rate_hz == rate
    assert [frame.stamp_ns for frame in source] == [round(10**9 * i / rate) for i in range(10)]


ORIENTATIONS = {
    "as stored": ((1, 0, 0, 1), lambda image: image),
    "left and right mirrored": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "top and bottom mirrored": ((1, 0, 0, -1), lambda image: image[::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda image: image[::-1, ::-1]),
    "a quarter turn clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, -1)),
    "a quarter turn back": ((0, -1, 1, 0), lambda image: np.rot90(image)),
    "transposed": ((0, 1, 1, 0), lambda image: image.swapaxes(0, 1)),
    "transposed at the other diagonal": ((0, -1, -1, 0), lambda image: np.rot90(image, 2).swapaxes(0, 1)),
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_each_of_the_eight_orientations_is_applied(tmp_path, orientation):
    def corners(i):
        image = np.full((*SIZE, 3), 255, np.uint8)
        image[:48, :64], image[:48, 64:], image[48:, :64] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
        return image

    (a, b, c, d), expected = ORIENTATIONS[orientation]
    path = tmp_path / "v.mp4"
    encode(path, [0, 40], image=corners)
    data = path.read_bytes()
    unity, header = struct.pack(">9i", 65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30), data.find(b"tkhd")
    place = data.find(unity, header)
    assert 0 < header < place < header + 64
    matrix = struct.pack(">9i", a * 65536, b * 65536, 0, c * 65536, d * 65536, 0, 0, 0, 1 << 30)
    path.write_bytes(data[:place] + matrix + data[place + 36 :])
    frame = next(iter(open_source(path)))
    assert frame.image.shape == expected(corners(0)).shape
    assert np.abs(frame.image.astype(int) - expected(corners(0))).mean() < 5


FORMATS = {
    "v.mpg": ("mpeg1video", {"b": "4000000"}),
    "v2.mpg": ("mpeg2video", {"b": "4000000", "bf": "2"}),
    "v.vob": ("mpeg2video", {"b": "4000000"}),
    "v.m1v": ("mpeg1video", {"b": "4000000"}),
    "v.m2v": ("mpeg2video", {"b": "4000000", "bf": "2"}),
    "v8.webm": ("libvpx", {"b": "4000000"}),
    "v9.webm": ("libvpx-vp9", {"b": "4000000"}),
    "v.wmv": ("wmv2", {"b": "4000000"}),
    "v.asf": ("msmpeg4", {"b": "4000000"}),
    "v.ogv": ("libvpx", {"b": "4000000"}),
    "v.avi": ("mjpeg", {"q": "3"}),
    "v4.avi": ("mpeg4", {"b": "4000000", "bf": "2"}),
    "v.ts": ("libx264", {"bf": "2"}),
    "v.m2ts": ("libx264", {"bf": "2"}),
    "v.flv": ("libx264", {"bf": "2"}),
    "v.mov": ("prores", {}),
    "v.mkv": ("ffv1", {}),
    "v265.mp4": ("libx265", {"bf": "2"}),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_give_every_frame_in_order_at_even_times(tmp_path, name):
    codec, options = FORMATS[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot write {codec}")
    form = "ogg" if name == "v.ogv" else "mpegts" if name == "v.m2ts" else None
    with av.open(str(tmp_path / name), "w", format=form) as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = SIZE[1], SIZE[0]
        stream.pix_fmt = {"prores": "yuv422p10le", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        for i in range(NUM_FRAMES):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        container.mux(stream.encode(None))
    source = open_source(tmp_path / name)
    frames = list(source)
    assert source.rate_hz == pytest.approx(25)
    steps = np.diff([frame.stamp_ns for frame in frames])
    assert len(frames) == NUM_FRAMES and np.abs(steps - 40_000_000).max() < 1_000_000
    left = [float(frame.image[:, 8:56].mean()) for frame in frames]
    np.testing.assert_allclose(left, [4 * i for i in range(NUM_FRAMES)], atol=4)


@pytest.mark.parametrize("name", ["v.mp4", "v.mov", "v.mkv", "v.webm", "pieces.mp4"])
def test_a_last_frame_that_is_shown_long_is_no_missing_end(tmp_path, name):
    fragments = {"movflags": "frag_keyframe+empty_moov+delay_moov"} if name == "pieces.mp4" else {}
    codec = "libvpx" if name == "v.webm" else "libx264"
    with av.open(str(tmp_path / name), "w", options=fragments) as container:
        stream = container.add_stream(codec, rate=25, options={"bf": "0"} if codec == "libx264" else {})
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        frames = [av.VideoFrame.from_ndarray(picture(i), format="rgb24") for i in range(6)]
        for packet in [packet for frame in (*frames, None) for packet in stream.encode(frame)]:
            is_last = packet.pts * packet.time_base > Fraction(19, 100)
            packet.duration = round((5 if is_last else Fraction(1, 25)) / packet.time_base)
            container.mux(packet)
    source = open_source(tmp_path / name)
    assert [frame.stamp_ns for frame in source] == [40_000_000 * i for i in range(6)]
    assert source.rate_hz == 25  # not six frames in 5.2 s


@pytest.mark.parametrize("name", ["v.mkv", "v.wmv"])
def test_a_picture_before_the_video_is_a_cover(tmp_path, name):
    with av.open(str(tmp_path / name), "w") as container:
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = SIZE[1], SIZE[0], "yuvj420p"
        stream = container.add_stream("libx264" if name == "v.mkv" else "wmv2", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.full((*SIZE, 3), 255, np.uint8), format="rgb24")))
        container.mux(cover.encode(None))
        for i in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        container.mux(stream.encode(None))
    source = open_source(tmp_path / name)
    left = [float(frame.image[:, 8:56].mean()) for frame in source]
    np.testing.assert_allclose(left, [4 * i for i in range(10)], atol=4)
    assert source.rate_hz == 25


def test_a_video_of_pictures_alone_is_no_cover(tmp_path):
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE[1], SIZE[0], "yuvj420p"
        for i in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), format="rgb24")))
        container.mux(stream.encode(None))
    assert len(list(open_source(tmp_path / "v.mkv"))) == 10


COLOUR = (200, 60, 30)
MATRICES = {"BT.601": (0.299, 0.114), "BT.709": (0.2126, 0.0722), "BT.2020": (0.2627, 0.0593)}
TAGS = {"BT.601": "smpte170m", "BT.709": "bt709", "BT.2020": "bt2020nc"}


def one_colour(path, lines, matrix, tagged, full_range=False):
    """A lossless video of `COLOUR`, converted here by the formulas of the standard."""
    kr, kb = MATRICES[matrix]
    r, g, b = (value / 255 for value in COLOUR)
    y = kr * r + (1 - kr - kb) * g + kb * b
    chroma = [(b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))]
    values = (
        [255 * y, *(128 + 255 * c for c in chroma)] if full_range else [16 + 219 * y, *(128 + 224 * c for c in chroma)]
    )
    said = [f"colormatrix={TAGS[matrix]}"] * tagged + ["fullrange=on"] * full_range
    options = {"crf": "0"} | ({"x264-params": ":".join(said)} if said else {})
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, lines, "yuv420p"
        for i in range(2):
            frame = av.VideoFrame(64, lines, "yuv420p")
            for plane, value in zip(frame.planes, values, strict=True):
                plane.update(bytes([round(value)]) * plane.buffer_size)
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("lines", [480, 720])
@pytest.mark.parametrize("matrix", MATRICES)
def test_the_matrix_that_a_file_names_is_taken(tmp_path, caplog, matrix, lines, full_range):
    one_colour(tmp_path / "v.mp4", lines, matrix, tagged=True, full_range=full_range)
    with caplog.at_level("INFO", "vidseg_core"):
        frames = list(open_source(tmp_path / "v.mp4"))
    assert np.abs(frames[0].image.astype(int) - COLOUR).max() <= 3
    assert caplog.text == ""


@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize(("lines", "matrix"), [(480, "BT.601"), (718, "BT.601"), (720, "BT.709"), (1080, "BT.709")])
def test_a_file_that_names_no_matrix_has_that_of_its_size_and_it_is_said_once(
    tmp_path, caplog, lines, matrix, full_range
):
    one_colour(tmp_path / "v.mp4", lines, matrix, tagged=False, full_range=full_range)
    with caplog.at_level("INFO", "vidseg_core"):
        frames = list(open_source(tmp_path / "v.mp4"))
    assert np.abs(frames[0].image.astype(int) - COLOUR).max() <= 3
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'v.mp4'}: names no colour matrix; {matrix} is taken, as usual for {lines} lines"
    ]


@pytest.mark.parametrize(("codec", "pixels"), [("ffv1", "bgr0"), ("ffv1", "gray"), ("libx264rgb", "rgb24")])
def test_rgb_and_grey_have_no_matrix(tmp_path, caplog, codec, pixels):
    image = np.full((720, 64, 3), 120 if pixels == "gray" else COLOUR, np.uint8)
    with av.open(str(tmp_path / "v.mkv"), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"crf": "0"} if codec == "libx264rgb" else {})
        stream.width, stream.height, stream.pix_fmt = 64, 720, pixels
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    with caplog.at_level("INFO", "vidseg_core"):
        (frame,) = open_source(tmp_path / "v.mkv")
    assert np.abs(frame.image.astype(int) - image).max() <= 1
    assert caplog.text == ""


def test_files_that_were_joined_end_where_the_longer_one_ends(tmp_path):
    encode(tmp_path / "a.ts", [40 * i for i in range(NUM_FRAMES)])
    encode(tmp_path / "b.ts", [40 * i for i in range(5)])
    (tmp_path / "v.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    assert len(list(open_source(tmp_path / "v.ts"))) == NUM_FRAMES + 5


@pytest.mark.parametrize("name", ["v.mkv", "v.mp4"])
def test_a_frame_in_five_seconds_is_slow_but_complete(tmp_path, name):
    encode(tmp_path / name, [5000 * i for i in range(4)])
    source = open_source(tmp_path / name)
    assert [frame.stamp_ns for frame in source] == [5 * 10**9 * i for i in range(4)]
