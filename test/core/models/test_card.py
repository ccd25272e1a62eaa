from dataclasses import replace

import pytest

from vidseg_core.classes import load_classes
from vidseg_core.errors import CheckpointError, ClassTableError
from vidseg_core.models.card import CARD_VERSION, SWIFTNET_INPUT, InputCard, ModelCard, OutputCard, card_of
from vidseg_core.models.registry import WeightRecord

CAMVID = load_classes("camvid")
RECORD = WeightRecord(
    "net", "net.pt", "public", "swiftnet-r18", "camvid", "MIT", "https://example.org/net.pt", "sha256:" + "0" * 64,
    activation_ranges={"conv": [0, 2]},
)  # fmt: skip


def card(metadata, record=None, input=SWIFTNET_INPUT, registered=None):
    return card_of(
        "swiftnet-r18", metadata, record, input=input, output=OutputCard(stride=4), registered_classes=registered,
        checksum="1" * 64,
    )  # fmt: skip


def test_the_file_comes_before_its_record_and_that_before_the_architecture():
    silent = card({}, RECORD, registered=CAMVID)
    assert silent.input == InputCard(multiple=32) and silent.output == OutputCard("logits", 4)
    assert silent.classes == CAMVID and silent.activation_ranges == {"conv": (0, 2)}
    assert (silent.licence, silent.source, silent.registered_as) == ("MIT", "https://example.org/net.pt", "net")
    told = card(
        {
            "architecture": "swiftnet-r18",
            "normalisation": {"mean_rgb": [1, 2, 3], "std_rgb": [4.5, 5, 6]},
            "input_scale": 1.5,
            "input_rows": 540,
            "enlarge": 1.5,
            "classes": load_classes("cityscapes").to_dict(),
            "activation_ranges": {"conv": [-1, 1]},
            "feedback": False,
        },
        RECORD,
        registered=CAMVID,
    )
    assert told.input == InputCard(mean=(1, 2, 3), std=(4.5, 5, 6), multiple=32, scale=1.5, rows=540, enlarge=1.5)
    assert told.classes.name == "cityscapes" and told.activation_ranges == {"conv": (-1, 1)}
    assert told.notes == {"feedback": False} and told.checksum == "1" * 64 and told.version == CARD_VERSION


def test_networks_that_take_values_as_they_are_ignore_the_statistics_that_files_have_all_the_same():
    raw = InputCard(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    stored = {"normalisation": {"mean_rgb": [73.15, 82.9, 72.3], "std_rgb": [47.67, 48.49, 47.73]}}
    assert raw.is_raw and card(stored, input=raw).input == raw
    assert not card(stored).input.is_raw and card(stored).input.is_default_normalisation


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"card_version": 2}, "card_version: expected 1 .*, got 2"),
        ({"card_version": "1"}, "card_version: expected 1 .*, got '1'"),
        ({"normalisation": {"mean_rgb": [1, 2, 3]}}, "normalisation: expected mean_rgb and std_rgb"),
        ({"normalisation": {"mean_rgb": [1, 2], "std_rgb": [1, 2, 3]}}, r"mean: expected three numbers, got \(1, 2\)"),
        ({"normalisation": {"mean_rgb": [1, 2, 3], "std_rgb": [1, 0, 3]}}, "std: expected three numbers above 0"),
        ({"normalisation": {"mean_rgb": [1, 2, float("nan")], "std_rgb": [1, 1, 3]}}, "mean: expected three numbers"),
        ({"input_scale": 0}, "input_scale: expected a number above 0, got 0"),
        ({"input_rows": 0}, "input_rows: expected a whole number, 1 or more, got 0"),
        ({"input_rows": 540.0}, "input_rows: expected a whole number, 1 or more, got 540.0"),
        ({"input_rows": 540, "enlarge": 0.5}, "enlarge: expected a number, 1 or more, got 0.5"),
        ({"activation_ranges": {"conv": [2, 1]}}, "activation_ranges: expected two numbers"),
    ],
)
def test_metadata_that_make_no_sense(metadata, message):
    with pytest.raises(CheckpointError, match=message):
        card(metadata)


@pytest.mark.parametrize(
    ("rows", "scale"), [(1080, 0.5), (720, 0.75), (540, 1.0), (480, 1.125), (360, 1.5), (240, 1.5)]
)
def test_a_picture_is_seen_at_the_rows_of_the_training_and_enlarged_as_far_as_that_helps(rows, scale):
    trained = card({"input_rows": 540, "enlarge": 1.5, "input_scale": 1.5}).input
    assert trained.scale_for((rows, 2 * rows)) == pytest.approx(scale)
    never_enlarged = replace(trained, enlarge=1.0)
    assert never_enlarged.scale_for((rows, 2 * rows)) == pytest.approx(min(scale, 1.0))


def test_without_rows_the_scale_of_the_training_or_the_picture_s_own_size_is_taken():
    assert card({"input_scale": 1.5}).input.scale_for((1080, 1920)) == 1.5
    assert card({}).input.scale_for((1080, 1920)) == 1.0 and card({}).input.scale_for((1080, 1920), 0.5) == 0.5


def test_the_rows_of_the_record_stand_in_for_a_file_that_does_not_tell_them():
    record = replace(RECORD, input_rows=540, enlarge=1.5)
    assert (card({}, record).input.rows, card({}, record).input.enlarge) == (540, 1.5)
    told = card({"input_rows": 360}, record).input
    assert (told.rows, told.enlarge) == (360, 1.0)


def test_a_class_table_that_is_none():
    with pytest.raises(ClassTableError, match="expected `name`"):
        card({"classes": {"name": "x"}})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InputCard(layout="chw"), "layout: expected one of nchw, nhwc, got 'chw'"),
        (lambda: InputCard(colours="grey"), "colours: expected one of rgb, bgr"),
        (lambda: InputCard(size_rule="any"), "size_rule: expected one of multiple, fixed"),
        (lambda: InputCard(size_rule="fixed"), "size: expected height and width"),
        (lambda: InputCard(size_rule="square", size=(64, 96)), "size: expected two equal sides, as the rule is square"),
        (lambda: InputCard(size_rule="shortest_edge"), "shortest_edge: expected a whole number, 1 or more, .*None"),
        (lambda: InputCard(longest_edge=0), "longest_edge: expected a whole number, 1 or more, .*0"),
        (lambda: InputCard(fit="crop"), "fit: expected one of stretch, letterbox, .*'crop'"),
        (lambda: InputCard(resize="nearest"), "resize: expected one of aligned, .*'nearest'"),
        (lambda: InputCard(multiple=0), "multiple: expected a whole number, 1 or more, got 0"),
        (lambda: OutputCard("scores"), "kind: expected one of logits, probabilities, labels, flow"),
        (lambda: OutputCard(stride=0.5), "stride: expected a whole number"),
        (lambda: ModelCard(""), "architecture: expected a name"),
        (lambda: ModelCard("x", version=7), "card_version: expected 1"),
    ],
)
def test_cards_are_checked_when_they_are_made(make, message):
    with pytest.raises(CheckpointError, match=message):
        make()


def test_networks_of_others_can_be_described():
    eomt = InputCard(size_rule="fixed", size=(512, 512), mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4))
    mobile_vit = InputCard(colours="bgr", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
    assert ModelCard("eomt", eomt, OutputCard("probabilities", 4)).input.size == (512, 512)
    assert ModelCard("mobilevit", mobile_vit, OutputCard("logits", 16)).classes is None
    assert ModelCard("yolo", InputCard(multiple=32), OutputCard("labels", 1)).output.kind == "labels"
