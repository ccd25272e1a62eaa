"""Parquet and object stores: skipped where pyarrow or the local S3 server is not installed."""

import cv2
import numpy as np
import pytest
import zstandard

from vidseg_core.cli import main as cli
from vidseg_core.errors import ConfigError
from vidseg_core.fleet.inputs import Fetcher, find

pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

COUNT = 12


@pytest.fixture(scope="module")
def options(untrained):
    return ["--weights", untrained, "--interval", "2", "--input-scale", "0.5", "--runtime", "eager", "--ray", "none"]


@pytest.fixture(scope="module")
def drives(record, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drives")
    record(folder / "a", COUNT, seed=1)
    record(folder / "b", COUNT, seed=2, storage="sqlite3", truth=False)
    return folder


def test_tables_have_a_row_for_each_recording_segment_and_frame(drives, options, tmp_path, capsys):
    (drives / "broken.mcap").write_bytes(b"nothing")
    arguments = ["fleet", "replay", str(drives), "--out", str(tmp_path), "--segment-frames", "6", *options]
    assert cli.main(arguments) == 2
    (drives / "broken.mcap").unlink()
    assert f"{tmp_path}: 3 recordings, 24 frames computed, 0 were there" in capsys.readouterr().out
    recordings = pq.read_table(tmp_path / "recordings.parquet").to_pylist()
    assert [(row["place"], row["frames"], row["labelled_frames"]) for row in recordings] == [
        (f"{drives}/a", COUNT, COUNT),
        (f"{drives}/b", COUNT, 0),
    ]
    assert dict(recordings[0]["class_iou"]).keys() >= {"road", "sky"} and recordings[0]["errors"] == []
    segments = pq.read_table(tmp_path / "segments.parquet").to_pylist()
    assert [(row["first"], row["stop"], row["frames"]) for row in segments] == [(0, 6, 6), (6, 12, 6)] * 2
    frames = pq.read_table(tmp_path / "frames").to_pydict()
    assert frames["number"] == [*range(COUNT)] * 2 and frames["is_key"][:4] == [True, False, False, True]
    a = slice(0, COUNT)
    assert sum(frames["right_pixels"][a]) / sum(frames["labelled_pixels"][a]) == pytest.approx(
        recordings[0]["pixel_accuracy"] / 100, abs=1e-5
    )
    assert set(frames["labelled_pixels"][COUNT:]) == {-1}
    assert not list(tmp_path.glob(".*.part"))
    assert cli.main(arguments[:-2] + ["--ray", "none"]) == 0  # and takes the place of the tables before
    assert pq.read_table(tmp_path / "frames").num_rows == 2 * COUNT


def test_labels_in_parquet_are_compressed_by_zstandard(drives, options, tmp_path):
    arguments = [
        "fleet",
        "label",
        str(drives / "a"),
        "--out",
        str(tmp_path / "state"),
        "--to",
        str(tmp_path / "labels"),
    ]
    assert cli.main([*arguments, "--form", "png", *options]) == 0
    assert cli.main([*arguments, "--form", "parquet", *options]) == 0
    rows = pq.read_table(tmp_path / "labels" / "a_labels.parquet").to_pylist()
    assert [row["number"] for row in rows] == list(range(COUNT))
    for row in rows:
        found = np.frombuffer(zstandard.ZstdDecompressor().decompress(row["labels"]), np.uint8)
        shown = cv2.imread(str(tmp_path / "labels" / "a_labels" / f"{row['stamp_ns']}.png"), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(found.reshape(row["height"], row["width"]), shown)


@pytest.fixture(scope="module")
def bucket(drives):
    """An S3 server on this machine with the drives in it; gives the options of addresses."""
    pytest.importorskip("moto")
    boto3 = pytest.importorskip("boto3")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    host = "127.0.0.1" if host == "0.0.0.0" else host
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("AWS_ACCESS_KEY_ID", "testing"), ("AWS_SECRET_ACCESS_KEY", "testing")):
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        client = boto3.client("s3", endpoint_url=f"http://{host}:{port}", region_name="us-east-1")
        client.create_bucket(Bucket="fleet")
        for path in sorted(drives.rglob("*")):
            if path.is_file():
                client.upload_file(str(path), "fleet", f"drives/{path.relative_to(drives)}")
        yield f"?endpoint_override={host}:{port}&scheme=http&region=us-east-1"
    server.stop()


def test_recordings_in_an_object_store_are_found_and_fetched(drives, bucket, tmp_path):
    found = find([f"s3://fleet/drives{bucket}"])
    assert [place.name for place in found] == [f"s3://fleet/drives/{name}{bucket}" for name in "ab"]
    assert all(place.num_bytes > 10**5 for place in found)
    for pattern, name in (("drives/*/a.mcap", "a/a.mcap"), ("driv*/b", "b"), ("**/*.db3", "b/b.db3")):
        (matched,) = find([f"s3://fleet/{pattern}{bucket}"])
        assert matched.name == f"s3://fleet/drives/{name}{bucket}"
    (file,) = find([f"s3://fleet/drives/a/a.mcap{bucket}"])
    fetcher = Fetcher()
    path = fetcher.fetch(file.name)
    assert path.read_bytes() == (drives / "a" / "a.mcap").read_bytes()
    folder = fetcher.fetch(found[1].name)
    assert sorted(one.name for one in folder.iterdir()) == ["b.db3", "metadata.yaml"] and not path.exists()
    fetcher.clear()
    assert not folder.exists()
    for name in ("s3://fleet/nothing", "s3://nobucket/x"):
        with pytest.raises(ConfigError, match=f"{name}.*: (expected recordings, there are none|cannot be listed)"):
            find([name + bucket])


def test_scores_of_an_object_store_are_those_of_the_disk(drives, bucket, options, tmp_path, capsys):
    for name, where in (("disk", str(drives)), ("store", f"s3://fleet/drives{bucket}")):
        assert cli.main(["fleet", "replay", where, "--out", str(tmp_path / name), *options]) == 0
    assert cli.main(["fleet", "compare", str(tmp_path / "disk"), str(tmp_path / "store")]) == 0
    assert "2 drives, by mIoU 0 worse, 0 better, 2 equal" in capsys.readouterr().out
    arguments = ["fleet", "label", f"s3://fleet/drives{bucket}", "--out", str(tmp_path / "state"), *options]
    assert cli.main(arguments) == 2
    assert "expected a folder for its labels (--to)" in capsys.readouterr().err
    assert cli.main([*arguments, "--dry-run", "--to", str(tmp_path / "labels")]) == 0
    assert "in object stores: 2 recordings" in capsys.readouterr().out
