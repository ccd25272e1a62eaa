import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("mutate.py")


def test_damaged_recordings_give_errors_or_frames():
    """No traceback, no hang, bounded memory; a longer run is `python mutate.py 20000`."""
    ended = subprocess.run([sys.executable, SCRIPT, "2000"], capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-3000:]
    for outcome in ("whole", "in part", "error"):
        assert f"'{outcome}': " in ended.stdout
