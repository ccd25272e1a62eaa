"""Give damaged recordings to `vidseg run` and `vidseg replay --bag-out`: `python mutate_commands.py COUNT [SEED]`.

Each must end with 0 or 2, with labels or one line of error.
"""

import logging
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
os.environ["TQDM_DISABLE"] = "1"

from mutate import MOST_BYTES, STORAGES, TOPICS, check, peak_bytes, recordings  # noqa: E402

from vidseg_core.classes import load_classes  # noqa: E402
from vidseg_core.cli.main import main as cli  # noqa: E402

LONGEST_S = 60


def call(*arguments):
    """Exit status and what was said; what no user may see is raised."""
    said, begin_s = StringIO(), time.perf_counter()
    with redirect_stdout(said), redirect_stderr(said):
        status = cli([*map(str, arguments)])
    assert status in (0, 2) and "Traceback" not in said.getvalue(), said.getvalue()
    assert time.perf_counter() - begin_s < LONGEST_S, arguments
    return status, said.getvalue()


def main(count, seed):
    import torch

    from vidseg_core.models.files import save_weights
    from vidseg_core.networks.swiftnet import SwiftNet

    logging.disable(logging.CRITICAL)
    outcomes = Counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        weights = folder / "untrained.safetensors"
        torch.manual_seed(0)
        metadata = {"architecture": "swiftnet-r18", "classes": load_classes("camvid").to_dict()}
        save_weights(weights, SwiftNet(11).state_dict(), metadata)
        engine = ["--weights", weights, "--device", "cpu", "--runtime", "eager", "--threads", "1", "--topic", TOPICS[0]]
        for number, path in recordings(folder, count, seed):
            skip = ["--skip-bad"] * (number % 2)
            status, said = call("run", path, "--out", folder / "out", "--no-video", "--overwrite", *skip, *engine)
            outcomes["labels" if status == 0 else "error"] += 1
            assert status == 0 or "vidseg: error: " in said, (number, said)
            storage = ["--storage", STORAGES[number % 2]] if number % 3 else []
            options = [*storage, "--no-live", "--bag-out", folder / "copies", *skip, *engine]
            status, said = call("replay", path, *options)
            assert status == 0 or "vidseg: error: " in said, (number, said)
            for copy in (folder / "copies").glob("*"):
                check(copy, 0)
                outcomes["copies"] += 1
                shutil.rmtree(copy)
    peak = peak_bytes()
    print(f"{dict(outcomes)}, peak {peak // 2**20} MiB")
    assert peak < MOST_BYTES


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
