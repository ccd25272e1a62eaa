import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


def run(script, *arguments):
    return subprocess.Popen(
        [sys.executable, FOLDER / script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended(process, timeout_s):
    try:
        said, errors = process.communicate(timeout=timeout_s)
    finally:
        process.kill()
    assert process.returncode == 0, errors[-3000:]
    return said


def test_damaged_recordings_give_errors_or_labels():
    """No traceback, no hang, bounded memory; and what is written opens again."""
    said = ended(run("mutate.py", 250), 300)
    for outcome in ("whole", "in part", "error", "not stored"):
        assert f"'{outcome}': " in said


@pytest.mark.parametrize("seed", [1_006_462, 4746])
def test_recordings_that_did_not_end_well_once(seed):
    """Rows out of order, read while they were looked up, had no end; a compression was named in 2000 letters."""
    ended(run("mutate.py", 1, seed), 120)


@pytest.mark.long
def test_twenty_thousand_damaged_recordings():
    processes = [run("mutate.py", 20_000 // os.cpu_count() + 1, i * 10**6) for i in range(os.cpu_count())]
    try:
        for process in processes:
            assert "'error': " in ended(process, 7200)
    finally:
        for process in processes:
            process.kill()


@pytest.mark.long
def test_two_hundred_damaged_recordings_through_the_commands():
    """`vidseg run` on each, `vidseg replay --bag-out` on all."""
    assert "'labels': " in ended(run("mutate_commands.py", 200, 5000), 7200)
