"""The sizes of cameras' pictures outlive the process."""

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_ros import sizes  # noqa: E402


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_last_size_of_each_topic_is_known_at_the_next_start(cache):
    assert sizes.remembered("/front/image_raw") is None
    sizes.remember("/front/image_raw", (720, 1280))
    sizes.remember("/left/image_raw", (480, 640))
    sizes.remember("/front/image_raw", (1080, 1920))
    assert sizes.remembered("/front/image_raw") == (1080, 1920) and sizes.remembered("/left/image_raw") == (480, 640)


def test_with_the_share_of_the_network_s_input_at_pictures_of_that_size(cache):
    sizes.remember("/a", (720, 1280), 0.7)
    sizes.remember("/b", (480, 640))
    sizes.remember("/a", (720, 1280))
    assert sizes.remembered("/a") == (720, 1280) and sizes.remembered_share("/a", (720, 1280)) == 0.7
    assert sizes.remembered_share("/a", (480, 640)) is None and sizes.remembered_share("/b", (480, 640)) is None
    sizes.remember("/a", (480, 640))
    assert sizes.remembered_share("/a", (480, 640)) is None, "nothing is known of the new size"
    assert sizes.remembered_share("/c", (480, 640)) is None


def test_there_are_never_many(cache):
    for number in range(sizes.MOST_CAMERAS + 3):
        sizes.remember(f"/camera{number}", (720, 1280))
    assert sizes.remembered("/camera0") is None and len(sizes._kept()) == sizes.MOST_CAMERAS


@pytest.mark.parametrize("content", ["", "[]", '{"/a": 5}', '{"/a": [1, 2, "x"]}', '{"/a": [720]}', '{"/a": ["x", 1]}'])
def test_a_damaged_file_is_as_none(cache, content):
    sizes.sizes_file().parent.mkdir()
    sizes.sizes_file().write_text(content)
    assert sizes.remembered("/a") is None
    sizes.remember("/a", (720, 1280))
    assert sizes.remembered("/a") == (720, 1280)


def test_a_place_that_cannot_be_written_is_no_obstacle(cache):
    (cache / "vidseg").touch()
    sizes.remember("/a", (720, 1280))
    assert sizes.remembered("/a") is None


def test_an_rclpy_that_cannot_wait_for_a_message_looks_at_none(monkeypatch):
    """As Humble's before 3.3.14."""
    monkeypatch.setattr(sizes, "wait_for_message", None)
    assert sizes.look(None, "/a", None) is None
