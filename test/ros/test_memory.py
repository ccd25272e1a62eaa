"""That the memory of images is reused, by the page faults of a process that handles buffers of their size."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_ros import memory  # noqa: E402

# Buffers as images leave them: some megabytes each, several at a time, all of them freed before the next image comes.
PROGRAM = """
import resource, sys, threading
from vidseg_ros.memory import keep_freed_memory

def images(number):
    for _ in range(number):
        buffers = [b"".join((PIXELS, PIXELS)) for _ in range(4)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def work():
    images(3)
    before = faults()
    images(20)
    told.append(faults() - before)

if sys.argv[1] == "kept":
    keep_freed_memory()
PIXELS, told = bytes(3_000_000), []
work()
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(*told)
"""
PAGES_OF_A_BUFFER = 6_000_000 // 4096


def page_faults(how: str) -> list[int]:
    """Of twenty images, in the main thread and in another one."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True, timeout=60)
    assert done.stderr == ""
    return [int(number) for number in done.stdout.split()]


def test_the_next_image_finds_the_memory_of_the_one_before():
    assert max(page_faults("kept")) < PAGES_OF_A_BUFFER


def test_without_it_every_image_costs_fresh_pages():
    assert min(page_faults("as it comes")) > 20 * PAGES_OF_A_BUFFER


@pytest.mark.parametrize(
    "library, complaint",
    [(SimpleNamespace(), "no mallopt"), (SimpleNamespace(mallopt=lambda parameter, num_bytes: 0), "is refused")],
)
def test_another_c_library_is_told_of(library, complaint, monkeypatch, capfd):
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: library)
    memory.keep_freed_memory()
    assert complaint in capfd.readouterr().err
