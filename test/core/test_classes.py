from dataclasses import replace

import numpy as np
import pytest

from vidseg_core.classes import VOID, ClassTable, for_label_files, load_classes
from vidseg_core.errors import ClassTableError, DatasetError


def test_shipped_tables():
    camvid, cityscapes = load_classes("camvid"), load_classes("cityscapes")
    assert (len(camvid), camvid.names[3], camvid.names[10]) == (11, "road", "bicyclist")
    assert (len(cityscapes), cityscapes.names[0], cityscapes.names[18]) == (19, "road", "bicycle")
    assert cityscapes.from_file[[7, 8, 33, 0, 34, 255]].tolist() == [0, 1, 18, VOID, -1, VOID]
    assert camvid.from_file[[0, 10, 11, 12]].tolist() == [0, 10, VOID, -1]
    assert sorted(np.flatnonzero(cityscapes.from_file >= 0).tolist()) == [*range(34), 255]


def test_lut_has_void_for_everything_else():
    table = load_classes("camvid")
    assert table.lut.shape == (256, 3) and table.lut.dtype == np.uint8
    assert table.lut[3].tolist() == [128, 64, 128]
    assert (table.lut[11:] == 0).all()


def test_read_ids_names_file_and_id():
    table = load_classes("camvid")
    labels = table.read_ids(np.array([[0, 11], [255, 4]], dtype=np.uint8), "a.png")
    assert labels.tolist() == [[0, VOID], [VOID, 4]] and labels.dtype == np.uint8
    with pytest.raises(DatasetError, match=r"a\.png: label ids \[12, 40\] are not in class table 'camvid'"):
        table.read_ids(np.array([[0, 40], [12, 4]], dtype=np.uint8), "a.png")
    with pytest.raises(DatasetError, match=r"one channel and 8 bits, got uint8 \(2, 2, 3\)"):
        table.read_ids(np.zeros((2, 2, 3), dtype=np.uint8), "a.png")


def test_dictionary_round_trip():
    for name in ("camvid", "cityscapes", "cityscapes-trainids"):
        table = load_classes(name)
        again = ClassTable.from_dict(table.to_dict())
        assert again == table
        assert (again.file_colors, again.void_colors) == (table.file_colors, table.void_colors)


def test_a_network_s_table_finds_the_colours_of_label_files():
    camvid = load_classes("camvid")
    stored = ClassTable(camvid.name, camvid.names, camvid.palette, void_ids=camvid.void_ids)
    assert stored == camvid and not any(stored.file_colors)
    assert for_label_files(stored).file_colors == camvid.file_colors
    for other in (replace(stored, name="mine"), replace(stored, void_ids=(255,)), replace(stored, name="../camvid")):
        assert for_label_files(other) is other


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: x\n", "expected `name`, and `classes`"),
        ("- 1\n", "expected `name`, and `classes`|unknown keys"),
        ("name: x\nclasses: []\n", "expected 1 to 255 classes, got 0"),
        ("name: x\nclasses: [{name: a, color: [1, 2]}]\n", "three integers 0..255"),
        ("name: x\nclasses: [{name: a, color: [1, 2, 256]}]\n", "three integers 0..255"),
        ("name: x\nclasses: [{name: a, color: [1, 2, 3]}, {name: a, color: [1, 2, 3]}]\n", "names must differ"),
        ("name: x\nclasses: [{name: a, color: [1, 2, 3], ids: [255]}]\n", "used twice"),
        ("name: x\ncolour: 3\nclasses: []\n", "unknown keys"),
        ("name: [x\n", "not a YAML file"),
        ("name: x\nclasses: [{name: on, color: [1, 2, 3]}]\n", "names as text, got True; .* quotes"),
        ("name: x\nclasses: [{name: a, color: [1, 2, 3], ids: [true]}]\n", "label file ids in 0..255"),
        ("name: no\nclasses: [{name: a, color: [1, 2, 3]}]\n", "names as text, got False"),
        ("name: x\nclasses: [{name: a, color: [1, 2, 3], file_colors: [[1, 2]]}]\n", "three integers 0..255"),
        (
            "name: x\nclasses: [{name: a, color: [1, 2, 3], file_colors: [1, 2, 3]}]\n",
            "\\(1, 2, 3\\)\\] are used twice",
        ),
        ("name: x\nvoid_colors: [[1, 2, 3]]\nclasses: [{name: a, color: [1, 2, 3]}]\n", "are used twice"),
    ],
)
def test_malformed_tables(tmp_path, text, message):
    path = tmp_path / "table.yaml"
    path.write_text(text)
    with pytest.raises(ClassTableError, match=message):
        load_classes(path)


def test_unknown_table_lists_the_known_ones():
    with pytest.raises(ClassTableError, match=r"no class table 'nope'.*'camvid', 'cityscapes', 'cityscapes-trainids'"):
        load_classes("nope")


def test_largest_table_has_255_classes():
    names = tuple(str(i) for i in range(255))
    table = ClassTable("big", names, ((0, 0, 0),) * 255)
    assert table.from_file[254] == 254 and table.from_file[255] == VOID
    with pytest.raises(ClassTableError, match="1 to 255 classes, got 256"):
        ClassTable("big", (*names, "x"), ((0, 0, 0),) * 256)


def test_one_id_may_stand_without_brackets(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text("name: x\nvoid_ids: 0\nclasses: [{name: 'no', color: [1, 2, 3], ids: 255}]\n")
    table = load_classes(path)
    assert (table.names, table.file_ids, table.void_ids) == (("no",), ((255,),), (0,))


@pytest.mark.parametrize("ids", [[10, 2, 13, 0, 255], [10, 10, 2, 13, 7], [7, 8, 255, 11], [8, 8, 8, 13, 13, 8, 10]])
def test_class_ids_are_not_taken_for_label_ids(ids):
    ids = np.array([ids], np.uint8)
    with pytest.raises(DatasetError, match=r"a.png: .*look like class ids \(trainIds\).*table cityscapes-trainids"):
        load_classes("cityscapes").read_ids(ids, "a.png")
    assert load_classes("cityscapes-trainids").read_ids(ids, "a.png").tolist() == ids.tolist()


@pytest.mark.parametrize("ids", [[7, 8, 11, 4], [0, 1, 23], [255, 255], [7, 255, 26], [0, 1, 2]])
def test_label_ids_are_read_as_such(ids):
    table = load_classes("cityscapes")
    assert table.read_ids(np.array([ids], np.uint8), "a").tolist() == [table.from_file[ids].tolist()]


def test_class_ids_of_a_table():
    table = load_classes("cityscapes")
    assert not table.has_class_ids and table.with_class_ids().has_class_ids
    assert table.with_class_ids().from_file[[0, 18, 19, 255]].tolist() == [0, 18, -1, VOID]
    assert load_classes("cityscapes-trainids").has_class_ids


def test_colours_of_label_files(tmp_path):
    path = tmp_path / "table.yaml"
    path.write_text(
        "name: x\nvoid_color: [9, 9, 9]\nvoid_colors: [8, 8, 8]\n"
        "classes: [{name: a, color: [9, 9, 9]}, {name: b, color: [1, 2, 3], file_colors: [[4, 5, 6], [7, 7, 7]]}]\n"
    )
    table = load_classes(path)
    colors = np.array([[[1, 2, 3], [4, 5, 6], [7, 7, 7], [9, 9, 9], [8, 8, 8]]], np.uint8)
    assert table.read_colors(colors, "a.png").tolist() == [[1, 1, 1, 0, VOID]], "a class goes before void"
    again = ClassTable.from_dict(table.to_dict())
    assert (again.file_colors, again.void_colors) == (table.file_colors, table.void_colors)


def test_a_colour_of_two_classes_tells_nothing():
    table = ClassTable("x", ("a", "b", "c"), ((1, 2, 3), (1, 2, 3), (4, 5, 6)))
    assert table.read_colors(np.array([[[4, 5, 6], [0, 0, 0]]], np.uint8), "a.png").tolist() == [[2, VOID]]
    with pytest.raises(
        DatasetError, match=r"a.png: expected colours of one class each, \(1, 2, 3\) is that of a and b"
    ):
        table.read_colors(np.array([[[1, 2, 3]]], np.uint8), "a.png")
