import hashlib
import re
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from vidseg_core.classes import load_classes
from vidseg_core.errors import CheckpointError
from vidseg_core.models import architectures, registry
from vidseg_core.models.checksum import checksum
from vidseg_core.models.download import download
from vidseg_core.models.open import open_model
from vidseg_core.models.registry import WeightRecord, find_weights, load_registry

CONTENT = bytes(range(256)) * 9000  # more than two blocks


def record(**changes) -> WeightRecord:
    fields = {
        "name": "some-net",
        "file": "some-net.pt",
        "layout": "public",
        "architecture": "swiftnet-r18",
        "classes": "camvid",
        "licence": "MIT",
        "url": "http://127.0.0.1/some-net.pt",
        "checksum": "sha256:" + hashlib.sha256(CONTENT).hexdigest(),
    }
    return WeightRecord(**fields | changes)


@contextmanager
def server(status=200, body=CONTENT, announced=None):
    """A web server on this machine that answers every request with `body`, and announces `announced` bytes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            if announced is not None:
                self.send_header("Content-Length", str(announced))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}/some-net.pt"
        finally:
            http.shutdown()
            thread.join()


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Nothing of this machine's own weights is found: (package's weights, $VIDSEG_WEIGHTS, the cache)."""
    package, chosen, home = tmp_path / "package", tmp_path / "chosen", tmp_path / "home"
    monkeypatch.setenv("VIDSEG_WEIGHTS", str(chosen))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(registry, "resource", lambda relative: package / relative)
    directories = (package / "weights", chosen, home / ".cache/vidseg/weights")
    for directory in directories:
        directory.mkdir(parents=True)
    return directories


def test_the_sizes_of_the_packages_networks_are_those_of_camvid():
    expected = {
        "camvid-swiftnet-lite0": (630, 1.75), "camvid-swiftnet-r18": (540, 1.5), "camvid-update-lite0": (180, 1.0),
    }  # fmt: skip
    for name, sizes in expected.items():
        card = open_model(name).card.input
        assert (card.rows, card.enlarge) == sizes, name


def test_a_name_that_was_replaced_is_understood_and_told_once(caplog, monkeypatch):
    monkeypatch.setattr(registry, "_noticed", set())
    found = [registry.find_record("camvid-update-r18"), registry.find_weights("camvid-update-r18")]
    assert (found[0].name, found[1].name) == ("camvid-update-lite0", "camvid-update-lite0.safetensors")
    assert [record.getMessage() for record in caplog.records] == [
        "weights camvid-update-r18 are replaced by camvid-update-lite0, which is used; the old name goes in 0.3"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input_rows": 0}, "a whole number, 1 or more, as input_rows, got 0"),
        ({"input_rows": "540"}, "a whole number, 1 or more, as input_rows, got '540'"),
        ({"enlarge": 0.9}, "a number, 1 or more, as enlarge, got 0.9"),
        ({"enlarge": True}, "a number, 1 or more, as enlarge, got True"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(CheckpointError, match=message):
        record(**changes)


def test_the_packages_registry_agrees_with_the_networks_and_class_tables():
    names = {one.name for one in architectures.ARCHITECTURES}
    records = load_registry()
    assert {"cityscapes-swiftnet-r18", "cityscapes-swnet-seq", "imagenet-resnet18"} <= {r.name for r in records}
    for known in records:
        assert known.architecture in names
        assert known.classes is None or len(load_classes(known.classes)) > 1
        if known.url is None:
            assert known.layout == "vidseg" and re.fullmatch("sha256:[0-9a-f]{64}", known.checksum)


def test_files_that_come_with_the_package_have_their_registered_checksums():
    for known in load_registry():
        if known.url is None:
            known.verify(registry.resource("weights") / known.file)


def test_the_public_checkpoint_is_known_by_its_content(upstream_weights):
    found = registry.record_of(upstream_weights / "cityscapes-swnet_model_best.pth.tar")
    assert found.name == "cityscapes-swnet-seq" and found.classes == "cityscapes"


def test_a_file_that_is_not_registered_is_not_identified(tmp_path):
    (tmp_path / "other.pt").write_bytes(b"other")
    assert registry.record_of(tmp_path / "other.pt") is None


def test_checksums_are_those_of_sha256sum_and_git(tmp_path):
    path = tmp_path / "hello"
    path.write_bytes(b"hello\n")
    assert checksum(path, "git-blob") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert checksum(path, "sha256") == "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03"
    with pytest.raises(ValueError, match="expected sha256 or git-blob, got 'md5'"):
        checksum(path, "md5")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "Two words"}, "expected a name of a-z"),
        ({"file": "../up.pt"}, "expected a file name without a directory, got '../up.pt'"),
        ({"layout": "other"}, "expected a layout out of .* got 'other'"),
        ({"url": "file:///etc/passwd"}, "expected a url that begins with http"),
        ({"checksum": "sha256:f370"}, "expected a checksum as sha256:HEX"),
        ({"checksum": "git-blob:132a99d1"}, "expected a checksum as sha256:HEX"),
        ({"licence": None}, "expected text as licence, got None"),
        ({"note": 3}, "expected text as note, got 3"),
        ({"activation_ranges": {"conv": [1, 0]}}, "expected two numbers, the smaller one first"),
        ({"activation_ranges": [0, 1]}, "expected two numbers, the smaller one first"),
        ({"activation_ranges": {"conv": [0, float("inf")]}}, "expected two numbers, the smaller one first"),
    ],
)
def test_a_malformed_record_is_refused(changes, message):
    with pytest.raises(CheckpointError, match=message):
        record(**changes)


ENTRY = (
    "{name: a, file: a.pt, layout: public, architecture: x, classes: null, licence: MIT, url: null, "
    "checksum: 'sha256:00000000'}"
)
OTHER = ENTRY.replace("name: a, file: a.pt", "name: b, file: b.pt").replace("classes: null", "classes: camvid")


def updated_by(name: str, entry: str = ENTRY) -> str:
    points = "{0: 0, 1: 9}"
    update = f"{{weights: {name}, lost_by_age_s: {points}}}"
    accuracy = f"{{rows: {points}, lost_by_age_s: {points}, lost_by_stride: {points}, update: {update}}}"
    return f"{entry[:-1]}, accuracy: {accuracy}}}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weights: {", "not a YAML file"),
        ("weights: 3", "expected a list of records under `weights`"),
        ("[]", "expected a list of records under `weights`"),
        ("weights: [{name: a}]", "missing 7 required"),
        (f"weights: [{ENTRY[:-1]}, colour: red}}]", "unexpected keyword argument 'colour'"),
        (f"weights: [{ENTRY}, {ENTRY}]", "expected every name once, found \\['a'\\] more than once"),
        (f"weights: [{ENTRY}, {ENTRY.replace('name: a', 'name: b')}]", "expected every file once, found \\['a.pt'\\]"),
        (f"weights: [{updated_by('b')}]", "weights 'a': accuracy: expected a registered update network .*, got 'b'"),
        (f"weights: [{updated_by('b')}, {OTHER}]", "a registered update network of classes None, got 'b'"),
    ],
)
def test_a_malformed_registry_is_refused_by_name(tmp_path, text, message):
    path = tmp_path / "registry.yaml"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=message) as error:
        load_registry(path)
    assert str(error.value).startswith(str(path))


def test_an_accuracy_may_be_with_an_update_network_of_the_same_registry(tmp_path):
    path = tmp_path / "registry.yaml"
    path.write_text(f"weights: [{updated_by('b', ENTRY.replace('classes: null', 'classes: camvid'))}, {OTHER}]")
    updated, _ = load_registry(path)
    assert updated.accuracy["update"] == {"weights": "b", "lost_by_age_s": {0: 0, 1: 9}}


def test_registered_weights_have_their_present_name_and_others_what_they_are_called_by():
    assert registry.registered_name("camvid-update-lite0") == "camvid-update-lite0"
    assert registry.registered_name("camvid-update-r18") == "camvid-update-lite0"
    assert registry.registered_name("runs/mine.pt") == "runs/mine.pt"


def test_a_path_that_exists_stands_for_itself(places, tmp_path):
    path = tmp_path / "mine.pt"
    path.write_bytes(b"x")
    assert find_weights(path, (record(),)) == path
    assert find_weights(str(path), (record(),)) == path


def test_a_name_is_looked_up_in_the_package_then_the_chosen_directory_then_the_cache(places):
    for directory in reversed(places):
        (directory / "some-net.pt").write_bytes(b"x")
        assert find_weights("some-net", (record(),)) == directory / "some-net.pt"


def test_absent_weights_name_the_command_that_fetches_them(places):
    with pytest.raises(CheckpointError, match="no some-net.pt in .*: `vidseg weights get some-net` fetches it"):
        find_weights("some-net", (record(),))
    with pytest.raises(CheckpointError, match="it comes with vidseg: reinstall it"):
        find_weights("some-net", (record(url=None),))


def test_neither_a_path_nor_a_name_lists_the_names(places):
    with pytest.raises(CheckpointError, match=r"nosuch: neither a weight file nor the name .* \['some-net'\]"):
        find_weights("nosuch", (record(),))


@pytest.mark.parametrize("announced", [None, len(CONTENT)])
def test_a_download_arrives_whole_and_reports_its_progress(tmp_path, announced):
    seen = []
    with server(announced=announced) as url:
        path = download(record(url=url), tmp_path / "new", lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "new/some-net.pt" and path.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), announced) and len(seen) >= 3
    assert [p.name for p in path.parent.iterdir()] == ["some-net.pt"]


def test_a_download_is_checked_by_git_blob_and_by_a_beginning_of_sha256(tmp_path):
    blob = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()
    for sum_ in (f"git-blob:{blob}", "sha256:" + hashlib.sha256(CONTENT).hexdigest()[:8]):
        with server() as url:
            assert download(record(url=url, checksum=sum_), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"body": CONTENT[:-1]}, "has another file: expected sha256 .* found .*: not kept"),
        ({"status": 404, "body": b"no"}, "HTTP Error 404"),
        ({"body": CONTENT[:-1], "announced": len(CONTENT)}, "broke off after 2303999 of 2304000 bytes"),
    ],
)
def test_a_failed_download_leaves_nothing_behind_and_keeps_what_was_there(tmp_path, answer, message):
    (tmp_path / "some-net.pt").write_bytes(b"older")
    with server(**answer) as url, pytest.raises(CheckpointError, match=message):
        download(record(url=url), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["some-net.pt"]
    assert (tmp_path / "some-net.pt").read_bytes() == b"older"


def test_a_server_that_does_not_answer_is_an_error_of_ours(tmp_path):
    with server() as url:
        pass
    with pytest.raises(CheckpointError, match=f"cannot fetch {url}"):
        download(record(url=url), tmp_path)


def test_weights_of_the_package_cannot_be_fetched(tmp_path):
    with pytest.raises(CheckpointError, match="come with vidseg and cannot be fetched"):
        download(record(url=None), tmp_path)
