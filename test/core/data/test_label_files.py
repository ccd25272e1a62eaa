"""Every form of label file that is known, written here and read."""

import struct
import zlib

import cv2
import numpy as np
import pytest

from vidseg_core.classes import VOID, load_classes
from vidseg_core.data.folder import FolderTruth
from vidseg_core.data.label_files import LabelFiles, check_size, read_labels
from vidseg_core.data.labelled import folder_pair
from vidseg_core.errors import DatasetError

CAMVID, CITYSCAPES = load_classes("camvid"), load_classes("cityscapes")
TRAIN_IDS = load_classes("cityscapes-trainids")


def png(rows, width, bits, kind, *chunks):
    """A PNG file from packed rows, with chunks before its data: forms that OpenCV does not write."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), bits, kind, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunk(*one) for one in chunks) + data + chunk(b"IEND", b"")


def ids_as_png(ids, bits, kind=0, *chunks):
    spread = (ids[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return png(
        [np.packbits(row.astype(np.uint8).ravel()).tobytes() for row in spread], ids.shape[1], bits, kind, *chunks
    )


def write(path, colors):
    """H x W x 3 or 4, RGB or RGBA."""
    order = cv2.COLOR_RGB2BGR if colors.shape[2] == 3 else cv2.COLOR_RGBA2BGRA
    cv2.imwrite(str(path), cv2.cvtColor(colors, order))


@pytest.fixture
def ids():
    """Ids of all of CamVid's classes and void."""
    return np.arange(12, dtype=np.uint8).reshape(3, 4)


@pytest.mark.parametrize("bits", [4, 8, 16])
def test_one_channel(ids, bits, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(ids_as_png(ids.astype(np.uint16), bits))
    assert read_labels(path, CAMVID).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, VOID]]


@pytest.mark.parametrize("bits", [1, 2])
def test_masks_of_few_bits(bits, tmp_path):
    path = tmp_path / "a.png"
    mask = np.array([[0, 1, 1], [1, 0, 0]], np.uint8)
    path.write_bytes(ids_as_png(mask, bits))
    assert read_labels(path, CAMVID).tolist() == mask.tolist()


@pytest.mark.parametrize("bits", [4, 8])
def test_of_a_palette_the_indices_count(ids, bits, tmp_path):
    """Its colours are those of VOC, DAVIS or a tool: here each is the colour of another class."""
    path = tmp_path / "a.png"
    colors = np.roll(CAMVID.colors, 1, axis=0)[np.arange(1 << bits) % 11]
    path.write_bytes(ids_as_png(ids, bits, 3, (b"PLTE", colors.tobytes()), (b"tRNS", bytes(3))))
    assert read_labels(path, CAMVID).tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, VOID]]


def test_a_transparent_grey_is_no_alpha_channel(ids, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(ids_as_png(ids, 8, 0, (b"tRNS", struct.pack(">H", 3))))
    assert read_labels(path, CAMVID)[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(("value", "readable"), [(255, True), (256, False), (26003, False), (65535, False)])
def test_16_bits_hold_ids_of_8(value, readable, tmp_path):
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), np.array([[3, value]], np.uint16))
    if readable:
        assert read_labels(path, CAMVID).tolist() == [[3, VOID]]
    else:
        with pytest.raises(DatasetError, match=f"a.png: expected label ids of 0 to 255, got uint16 up to {value}"):
            read_labels(path, CAMVID)


@pytest.mark.parametrize("channels", [3, 4])
def test_colours_are_those_of_the_class_table(channels, tmp_path):
    path = tmp_path / "a.png"
    colors = np.full((2, 13, channels), 255, np.uint8)
    colors[..., :3] = [*CITYSCAPES.colors[:11], CITYSCAPES.void_color, (250, 170, 160)]
    write(path, colors)
    assert read_labels(path, CITYSCAPES).tolist() == [[*range(11), VOID, VOID]] * 2
    assert read_labels(path, TRAIN_IDS).tolist() == [[*range(11), VOID, VOID]] * 2


# label_colors.txt of CamVid, and the class of SegNet's eleven that each belongs to.
CAMVID_ORIGINAL = """
64 128 64 pedestrian   192 0 128 building   0 128 192 bicyclist   0 128 64 building   128 0 0 building   64 0 128 car
64 0 192 pedestrian   192 128 64 pedestrian   192 192 128 pole   64 64 128 fence   128 0 192 road   192 0 64 road
128 128 64 sign   192 0 192 bicyclist   128 64 64 car   64 192 128 sidewalk   64 64 0 pedestrian   128 64 128 road
128 128 192 sidewalk   0 0 192 sidewalk   192 128 128 sign   128 128 128 sky   64 128 192 car   0 0 64 pole
0 64 64 sign   192 64 128 car   128 128 0 tree   192 128 192 car   64 0 64 building   192 192 0 tree   0 0 0 void
64 192 0 building
"""


def test_camvid_s_original_colours(tmp_path):
    words = CAMVID_ORIGINAL.split()
    entries = [(tuple(map(int, words[i : i + 3])), words[i + 3]) for i in range(0, len(words), 4)]
    assert len(entries) == 32
    for name in ("LabeledApproved", "images"):
        (tmp_path / name).mkdir()
    write(tmp_path / "LabeledApproved" / "0001TP_006690_L.png", np.array([[color for color, _ in entries]], np.uint8))
    truth = FolderTruth(tmp_path / "LabeledApproved", CAMVID)
    labels = truth.read(tmp_path / "images" / "0001TP_006690.png", (1, 32))
    assert [(*CAMVID.names, "void")[min(i, 11)] for i in labels[0]] == [name for _, name in entries]


def test_an_unknown_colour_is_named_with_its_share(tmp_path):
    path = tmp_path / "a.png"
    colors = np.zeros((10, 100, 3), np.uint8)
    colors[0, :25], colors[1, :5] = (1, 2, 3), (250, 0, 9)
    write(path, colors)
    shares = r"\(1, 2, 3\) 2.5 %, \(250, 0, 9\) 0.5 %"
    with pytest.raises(DatasetError, match=rf"a.png: colours .* of 3 % of the pixels are not in .* 'camvid': {shares}"):
        read_labels(path, CAMVID)


def test_many_unknown_colours_are_counted(tmp_path):
    path = tmp_path / "a.png"
    write(path, np.random.default_rng(0).integers(1, 50, (9, 9, 3)).astype(np.uint8))
    with pytest.raises(DatasetError, match=r" and \d\d more$"):
        read_labels(path, CAMVID)


def test_ids_in_three_channels_are_told(tmp_path):
    path = tmp_path / "a.png"
    write(path, np.full((4, 4, 3), 5, np.uint8))
    with pytest.raises(
        DatasetError, match="all three channels are equal: are these ids, which belong into one channel"
    ):
        read_labels(path, CAMVID)


def test_transparent_pixels_are_refused(tmp_path):
    path = tmp_path / "a.png"
    colors = np.full((2, 10, 4), 255, np.uint8)
    colors[0, :1] = 0
    write(path, colors)
    with pytest.raises(DatasetError, match="a.png: expected .*, 5 % of the pixels"):
        read_labels(path, CAMVID)


@pytest.mark.parametrize("name", ["f0.jpg", "f0.jpeg", "f0.png"])
def test_a_jpeg_is_named_as_what_it_is(name, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "aannot").mkdir()
    cv2.imwrite(str(tmp_path / "a" / "f0.png"), np.zeros((64, 64), np.uint8))
    (tmp_path / "aannot" / name).write_bytes(cv2.imencode(".jpg", np.zeros((64, 64), np.uint8))[1].tobytes())
    dataset = folder_pair(tmp_path, "a", CAMVID)
    with pytest.raises(DatasetError, match=rf"aannot/{name}: expected label ids as PNG, got a JPEG image"):
        dataset.check()


def test_a_preview_beside_the_ids_does_not_matter(tmp_path):
    for suffix in ("jpg", "png"):
        cv2.imwrite(str(tmp_path / f"f0.{suffix}"), np.zeros((64, 64), np.uint8))
    assert LabelFiles(tmp_path, CAMVID).find("f0").name == "f0.png"


@pytest.mark.parametrize(
    ("label", "image"),
    [
        ("x_gtFine_labelIds", "x_leftImg8bit"),
        ("x_gtCoarse_labelIds", "x_leftImg8bit"),
        ("x_gtFine_labelTrainIds", "x_leftImg8bit"),
        ("x_gtFine_color", "x_leftImg8bit"),
        ("x_gt_labelTrainIds", "x_rgb_anon"),
        ("x_gt_labelColor", "x_rgb_anon"),
        ("x_train_id", "x"),
        ("x_L", "x"),
        ("left_L", "left_L"),
        ("x", "x"),
    ],
)
def test_names(label, image, tmp_path):
    (tmp_path / f"{label}.png").touch()
    files = LabelFiles(tmp_path, CITYSCAPES)
    assert files.find(image).stem == label and files.without_image([image]) == []
    assert files.find("y") is None and files.without_image(["y"]) == [label]


def test_of_several_forms_the_table_s_own_is_taken(tmp_path):
    for form in ("color", "instanceIds", "labelIds", "labelTrainIds"):
        (tmp_path / f"x_gtFine_{form}.png").touch()
    assert LabelFiles(tmp_path, CITYSCAPES).find("x_leftImg8bit").stem == "x_gtFine_labelIds"
    assert LabelFiles(tmp_path, TRAIN_IDS).find("x_leftImg8bit").stem == "x_gtFine_labelTrainIds"


def test_the_name_tells_train_ids(tmp_path):
    """So the table of labelIds, which is the network's, does for them, too."""
    stored = np.array([[0, 2, 10, 13, 255]], np.uint8)
    for name in ("x_gtFine_labelTrainIds.png", "x_train_id.png"):
        cv2.imwrite(str(tmp_path / name), stored)
        assert read_labels(tmp_path / name, CITYSCAPES).tolist() == stored.tolist()
    cv2.imwrite(str(tmp_path / "x_gtFine_labelIds.png"), np.array([[7, 11, 23, 26, 0]], np.uint8))
    assert read_labels(tmp_path / "x_gtFine_labelIds.png", CITYSCAPES).tolist() == stored.tolist()


def with_orientation(jpeg, orientation):
    tiff = b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0) + bytes(4)
    block = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def test_an_image_that_exif_turns_is_told(tmp_path):
    for name in ("a", "aannot"):
        (tmp_path / name).mkdir()
    jpeg = cv2.imencode(".jpg", np.zeros((64, 96), np.uint8))[1].tobytes()
    (tmp_path / "a" / "f0.jpg").write_bytes(with_orientation(jpeg, 6))
    cv2.imwrite(str(tmp_path / "aannot" / "f0.png"), np.zeros((64, 96), np.uint8))
    expected = (
        r"f0.png: expected labels as large as .*f0.jpg \(64 x 96\), got 96 x 64; .* turned by its EXIF orientation"
    )
    with pytest.raises(DatasetError, match=expected):
        folder_pair(tmp_path, "a", CAMVID).check()
    with pytest.raises(DatasetError, match=expected):
        FolderTruth(tmp_path / "aannot", CAMVID).read(tmp_path / "a" / "f0.jpg", (96, 64))
    cv2.imwrite(str(tmp_path / "aannot" / "f0.png"), np.zeros((96, 64), np.uint8))
    folder_pair(tmp_path, "a", CAMVID).check()


def test_another_size_is_not_laid_to_exif(tmp_path):
    cv2.imwrite(str(tmp_path / "f0.png"), np.zeros((96, 64), np.uint8))
    with pytest.raises(DatasetError, match=r"labels.png: .* \(64 x 96\), got 96 x 64$"):
        check_size(np.zeros((64, 96), np.uint8), "labels.png", (96, 64), tmp_path / "f0.png")
