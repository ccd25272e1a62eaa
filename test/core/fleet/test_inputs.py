import pytest

from vidseg_core.errors import ConfigError
from vidseg_core.fleet import inputs
from vidseg_core.fleet.content import content_of, files_of
from vidseg_core.fleet.inputs import Fetcher, Place, find, group


@pytest.fixture
def drives(tmp_path):
    for name in ("a.mcap", "b/x.db3", "b/metadata.yaml", "c/d_0.mcap", "c/d_1.mcap", "e/f.bag", "e/g.mcap.zstd"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "e" / "notes.md").write_text("of no matter")
    (tmp_path / "e" / ".hidden").mkdir()
    (tmp_path / "e" / ".hidden" / "h.mcap").write_bytes(b"h")
    return tmp_path


def names(places, root):
    return [place.name.removeprefix(f"{root}/") for place in places]


def test_a_folder_stands_for_the_recordings_below(drives):
    assert names(find([str(drives)]), drives) == ["a.mcap", "b", "c", "e/f.bag", "e/g.mcap.zstd"]
    assert names(find([f"{drives}/b/metadata.yaml", f"{drives}/b"]), drives) == ["b"]


def test_patterns_lists_and_names_give_each_recording_once(drives):
    (drives / "list.txt").write_text(f"# drives\n\n{drives}/a.mcap\n{drives}/e\n")
    found = find([f"{drives}/e/*", str(drives / "list.txt"), f"{drives}/a.mcap"])
    assert names(found, drives) == ["e/f.bag", "e/g.mcap.zstd", "a.mcap"]
    assert found[0] == Place(f"{drives}/e/f.bag", len("e/f.bag"))
    assert names(find([f"{drives}/**/*.mcap"]), drives) == ["a.mcap", "c/d_0.mcap", "c/d_1.mcap"]


def test_a_name_of_nothing_is_left_to_whoever_opens_it_and_a_pattern_of_nothing_refused(drives):
    assert find([f"{drives}/gone.mcap"]) == [Place(f"{drives}/gone.mcap", 0)]
    with pytest.raises(ConfigError, match="nothing has such a name"):
        find([f"{drives}/*.mkv"])
    (drives / "empty").mkdir()
    with pytest.raises(ConfigError, match="empty: expected recordings, there are none in it"):
        find([str(drives / "empty")])


def test_files_of_an_object_store_are_grouped_as_those_of_a_disk():
    files = {"bucket/x/metadata.yaml": 1, "bucket/x/x.mcap": 5, "bucket/y.mcap": 7, "bucket/z.json": 9}
    assert group(files) == [Place("bucket/x", 5), Place("bucket/y.mcap", 7)]
    assert Place("s3://bucket/y.mcap", 7).is_remote and not Place("bucket/y.mcap", 7).is_remote


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("b/*.mcap", ["b/y.mcap"]),
        ("b/*", ["b/x", "b/y.mcap", "b/z/w.bag"]),
        ("b/**/*.bag", ["b/z/w.bag"]),
        ("b/[xz]", ["b/x", "b/z/w.bag"]),
        ("b/?", ["b/x", "b/z/w.bag"]),
        ("**/x.mcap", ["b/x/x.mcap"]),
    ],
)
def test_patterns_over_an_object_store_mean_what_they_mean_on_a_disk(pattern, expected):
    files = dict.fromkeys(("b/x/metadata.yaml", "b/x/x.mcap", "b/y.mcap", "b/z/w.bag", "b/z/notes.md"), 1)
    assert [place.name for place in inputs.matching(files, pattern)] == expected


def test_a_recording_on_this_machine_is_not_fetched(drives):
    assert Fetcher().fetch(f"{drives}/a.mcap") == drives / "a.mcap"


def test_what_killed_workers_have_fetched_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(inputs.tempfile, "gettempdir", lambda: str(tmp_path))
    for name in ("vidseg-fleet-999999999-x", "vidseg-fleet-1-y", "vidseg-fleet-files-0"):
        (tmp_path / name).mkdir()
    inputs._remove_left_behind()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["vidseg-fleet-1-y", "vidseg-fleet-files-0"]


def test_content_tells_recordings_apart_wherever_they_lie(tmp_path):
    for name in ("a.mcap", "copy.mcap", "other.mcap", "longer.mcap"):
        (tmp_path / name).write_bytes(
            b"x" * 1000 + name[:1].encode() * (name != "copy.mcap") + b"a" * (name == "copy.mcap")
        )
    (tmp_path / "longer.mcap").write_bytes(b"x" * 1001 + b"aa")
    digests = {path.name: content_of(path) for path in tmp_path.iterdir()}
    assert digests["a.mcap"] == digests["copy.mcap"]
    assert len(set(digests.values())) == 3


def test_content_of_a_large_file_is_that_of_its_beginning_end_and_blocks_between(tmp_path):
    path = tmp_path / "large.mcap"
    data = bytearray(10_000_000)
    path.write_bytes(data)
    before = content_of(path)
    for place in (0, len(data) - 1):
        data[place] = 1
        path.write_bytes(data)
        assert content_of(path) != before
        data[place] = 0


def test_content_of_a_folder_is_that_of_its_recordings_with_their_logs(drives):
    (drives / "b" / "x.db3-wal").write_bytes(b"changes")
    (drives / "b" / "notes.md").write_text("no")
    assert [path.name for path in files_of(drives / "b")] == ["x.db3", "x.db3-wal"]
    assert [path.name for path in files_of(drives / "b" / "x.db3")] == ["x.db3", "x.db3-wal"]
    assert content_of(drives / "b") == content_of(drives / "b" / "x.db3")
