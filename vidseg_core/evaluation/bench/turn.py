"""Propagate frames whenever asked to, for `in_turn`. Runs in any checkout since 0.1.0, by its text alone.

Reads one JSON object a line from standard input and answers each with one: first `folder`, `grid_stride` and `threads`
(with `images.npy`, N x H x W x 3, `scores.npy`, 1 x C x h x w, and `lut.npy`, 256 x 3, in the folder), then `loops`.
"""

import json
import os
import sys
import time

import numpy as np
import torch

import vidseg_core
from vidseg_core.classes import load_classes
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import EngineConfig
from vidseg_core.frame import Frame
from vidseg_core.overlay import overlay

OPACITY = 0.5
STEP_NS = 33_333_333


class Given:
    """A segmenter that gives the same scores for every frame."""

    def __init__(self, scores):
        self.num_classes = scores.shape[1]
        self.scores = scores

    def __call__(self, frame):
        return self.scores


class Turn:
    """One stream over the same few frames, again and again: a key frame, and the others propagated."""

    def __init__(self, folder, grid_stride, threads):
        self._images = np.load(os.path.join(folder, "images.npy"))
        self._lut = np.load(os.path.join(folder, "lut.npy"))
        self._seen = 0
        config = EngineConfig(
            device="cpu", num_threads=threads, interval=len(self._images) - 1, grid_stride=grid_stride, fusion=False
        )
        scores = torch.from_numpy(np.load(os.path.join(folder, "scores.npy")))
        scores = scores.contiguous(memory_format=torch.channels_last)
        self._stream = build_engine(config, Given(scores), load_classes("camvid")).stream()

    def loop(self, times):
        """Add milliseconds of the propagated frames to lists by stage."""
        for image in self._images:
            frame = Frame(image, self._seen * STEP_NS)
            self._seen += 1
            begin = time.perf_counter()
            result = self._stream.step(frame)
            labelled = time.perf_counter()
            overlay(image, result.labels, self._lut, OPACITY)
            end = time.perf_counter()
            if not result.is_key:
                stages = dict(result.timings)
                rest = (labelled - begin) * 1e3 - sum(stages.values())
                stages.update(overlay=(end - labelled) * 1e3, rest=rest, frame=(end - begin) * 1e3)
                for name, milliseconds in stages.items():
                    times.setdefault(name, []).append(milliseconds)


def main():
    # Whatever else writes there must not come between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    turn = None
    for line in sys.stdin:
        asked = json.loads(line)
        if "loops" not in asked:
            turn = Turn(**asked)
            answer = {"version": vidseg_core.__version__, "package": os.path.dirname(vidseg_core.__file__)}
        else:
            answer = {}
            for _ in range(asked["loops"]):
                turn.loop(answer)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
