"""An engine whose streams run at the step of the ladder that a governor picks while frames are labelled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from pathlib import Path

from vidseg_core.classes import ClassTable
from vidseg_core.engine.config import EngineConfig
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.governor import Governor, Move
from vidseg_core.engine.key_frames.background import CLOSE_S
from vidseg_core.engine.ladder import INTERVALS, Step, ladder
from vidseg_core.engine.protocol import capabilities
from vidseg_core.engine.stream import Stream
from vidseg_core.engine.update_network import UpdateNetwork
from vidseg_core.frame import Frame, Segmentation
from vidseg_core.models.accuracy import PRIOR
from vidseg_core.options import options_of
from vidseg_core.overlay import Colours

log = logging.getLogger(__name__)
GOVERNED = tuple(name for name, one in options_of(EngineConfig).items() if one.governed)
"""Options of `EngineConfig` that a governor can choose."""
SHARES = (0.35, 0.5, 0.7, 1.0)
"""Sizes of the network's input to choose from, in units of the one that suits the network."""
COARSEST_STRIDE = 8
UNUSED_S = 20.0
"""An update network that nobody has wanted for so long is let go of."""
SETTLED_S = 5.0
"""A step that has been held for so long is worth beginning with the next time."""


class GovernedEngine:
    """Streams over the networks of an engine, at the step that its governor picks; see `EngineProtocol`.

    Whoever has a stream label a frame calls `note` afterwards. For one thread at a time, but for `status`.

    Args:
        engine: closed with this one.
        free: which of `GOVERNED` the governor may choose; the others stay as `engine` was configured.
        max_age_s: labels must not be older.
        update: the update network that it may use; None for none. It is closed with this engine.
    """

    def __init__(
        self,
        engine: Engine,
        free: Collection[str],
        max_age_s: float = 1.0,
        update: UpdateNetwork | None = None,
    ):
        self._engine = engine
        self.free = frozenset(free)
        self._max_age_s = max_age_s
        self._update = update
        self._governor: Governor | None = None
        self._top_rows = 0
        self._first_share = 1.0
        self._moved_s = self._wanted_s = 0.0
        self._streams: list[GovernedStream] = []
        self._sizes: dict[GovernedStream, tuple[int, int]] = {}  # of their pictures
        self._status: dict[str, str] = {}
        self._lock = threading.Lock()

    @property
    def classes(self) -> ClassTable:
        return self._engine.classes

    @property
    def step(self) -> Step | None:
        """The step in use; None before the first frame, and where nothing is left to the governor."""
        return None if self._governor is None else self._governor.step

    @property
    def interval(self) -> int:
        """Of the configuration."""
        return self._engine.config.interval

    def stream(self, ego_mask: str | Path | None = None, *, phase: float = 0.0) -> GovernedStream:
        """Make a stream for one camera."""
        made = GovernedStream(self, self._engine.stream(ego_mask, phase=phase))
        self._streams.append(made)
        return made

    @property
    def settled_share(self) -> float | None:
        """Share of the network's input at which the governor has been for a while, of `SHARES`; None for none."""
        step = self.step
        if step is None or not self._top_rows or time.monotonic() - self._moved_s < SETTLED_S:
            return None
        return min(SHARES, key=lambda share: abs(share - step.rows / self._top_rows))

    def prepare(self, size: tuple[int, int], share: float | None = None) -> None:
        """Have the segmentation network made ready for pictures of `size`, (H, W), on a thread of its own.

        Args:
            share: of the network's input to begin with, if it is one of `SHARES` and the governor may choose it.
        """
        able = capabilities(self._engine.networks.segmenter)
        if share in SHARES and "input_scale" in self.free and able.input_rows is not None:
            self._first_share = self._engine.networks.segmenter.share = share  # type: ignore[attr-defined]
        prepare = able.prepare
        if prepare is not None:
            threading.Thread(target=prepare, args=(size,), name="vidseg-prepare", daemon=True).start()

    def segmenting_s(self) -> float:
        return self._engine.segmenting_s()

    def describe(self) -> dict:
        """Describe what computes the labels, see `Engine.describe`; and `governor`, what it may choose."""
        return self._engine.describe() | {"governor": sorted(self.free)}

    def close(self, timeout_s: float | None = CLOSE_S) -> bool:
        if self._update is not None:
            self._update.close()
        return self._engine.close(timeout_s)

    def status(self) -> dict[str, str]:
        """Describe the step in use, why it was taken and what it costs, for people; for any thread."""
        with self._lock:
            return dict(self._status)

    def note(
        self,
        stream: GovernedStream,
        segmentation: Segmentation,
        busy_s: float,
        received_s: float,
        number: int,
        dropped: int,
    ) -> Move | None:
        """Take note of a frame that was labelled, and move if it is time.

        Args:
            stream: that has labelled it.
            segmentation: of the frame.
            busy_s: what it took, publishing included.
            received_s: when it came, by `time.monotonic`.
            number: of frames of this camera up to it.
            dropped: number of these that were dropped.

        Returns:
            The move that was made, which has been logged; None for none.
        """
        if not self.free:
            return None
        now_s = time.monotonic()
        height, width = segmentation.labels.shape
        self._sizes[stream] = height, width
        if self._governor is None:
            self._governor = self._make((height, width))
        costs = self._key_costs()
        for seconds, share in costs:
            self._governor.key_frame(seconds, round(share * self._top_rows))
        key_s: float | None = None
        if "segment" in segmentation.timings:  # the frame has waited for it
            # What bringing the picture to the network takes, and its scores back, belongs to the frame.
            key_s = costs[-1][0] if costs else segmentation.timings["segment"] / 1e3
        update_s: float | None = None
        if self._update is not None and "update" in segmentation.timings:  # one that was given is part of every frame
            update_s = segmentation.timings["update"] / 1e3
        frame_s = max(0.0, busy_s - (key_s or 0.0) - (update_s or 0.0))
        self._governor.frame(stream, now_s, frame_s, received_s, number, dropped, key_s, update_s)
        if self._update is not None:
            sizes = self._sizes.values()
            self._governor.updater(self._update.costs_s(sizes), self._update.refuses(sizes))
        move = self._governor.decide(now_s)
        if move is not None:
            log.info("governor: %s; %s", move.step, move.reason)
            self._moved_s = now_s
            self._apply(move.step)
        self._set_rows(self._governor.rows)
        self._have_update_network(self._governor, now_s)
        told = {f"Governor {name[0].lower()}{name[1:]}": v for name, v in self._governor.describe(now_s).items()}
        with self._lock:
            self._status |= told
            if move is not None:
                self._status["Governor moved because"] = move.reason
        return move

    def _key_costs(self) -> list[tuple[float, float]]:
        """Take what segmentations have cost since this was last asked: seconds, share of the network's input."""
        costs = capabilities(self._engine.networks.segmenter).costs
        return [] if costs is None else [costs.popleft() for _ in range(len(costs))]

    def _apply(self, step: Step) -> None:
        for stream in self._streams:
            stream.apply(step, self.free)

    def _have_update_network(self, governor: Governor, now_s: float) -> None:
        """Have the update network made ready while it is wanted, used where it is ready, and let go of when it is not.

        A camera with pictures of another size has its frames updated once the network is ready for those.
        """
        if self._update is None:
            return
        if governor.wants_updater:
            self._wanted_s = now_s
            self._update.ask(self._sizes.values())
        elif now_s - self._wanted_s > UNUSED_S:
            self._update.let_go()
        for stream, size in self._sizes.items():
            is_used = governor.step.update and self._update.costs_s([size]) is not None
            stream.set_updater(self._update if is_used else None)

    def _set_rows(self, rows: int) -> None:
        if "input_scale" in self.free and self._top_rows:
            # The attribute stands in the capability's protocol: a segmenter that tells its costs takes a share, too.
            self._engine.networks.segmenter.share = rows / self._top_rows  # type: ignore[attr-defined]

    @property
    def _may_update(self) -> bool:
        """Whether there are steps with the update network: its loss is known, and nothing else looks at every frame."""
        config, networks, accuracy = self._engine.config, self._engine.networks, self._engine.accuracy
        is_known = self._update is not None and accuracy is not None and accuracy.update is not None
        is_alone = networks.refine is None and networks.updater is None and config.fusion
        return is_known and is_alone and "update_weights" in self.free

    def _make(self, size: tuple[int, int]) -> Governor:
        config, networks, free = self._engine.config, self._engine.networks, self.free
        able = capabilities(networks.segmenter)
        rows = able.input_rows(size) if able.input_rows is not None and "input_scale" in free else None
        self._top_rows = rows or 0
        sizes = sorted({round(self._top_rows * share) for share in SHARES})
        stride = config.stride_of(size)
        strides = {stride}
        if "grid_stride" in free and networks.refine is None and networks.flow.any_grid:
            strides |= {max(stride, 4)}
            # Elsewhere shrinking the picture so far takes a pass of its own, which costs more than is saved.
            if size[0] % COARSEST_STRIDE == size[1] % COARSEST_STRIDE == 0:
                strides |= {COARSEST_STRIDE}
        modes = tuple(INTERVALS) if "key_frames" in free else (config.key_frames,)
        intervals = None if "interval" in free and config.schedule == "fixed" else (config.interval,)
        updates = (False, True) if self._may_update else (False,)
        steps = ladder(sizes, sorted(strides), modes, intervals, updates)
        self._moved_s = time.monotonic()
        start = Step(config.key_frames, config.interval, round(self._top_rows * self._first_share), stride)
        accuracy = self._engine.accuracy or PRIOR
        log.info(
            "governor: %s; %d steps to choose from, expected accuracy %s",
            start, len(steps), "of the weights' record" if accuracy.is_measured else "not measured for these weights",
        )  # fmt: skip
        return Governor(steps, accuracy, start, self._max_age_s, size[0])


class GovernedStream:
    """One camera's frames at the governor's step; see `StreamProtocol`."""

    def __init__(self, engine: GovernedEngine, stream: Stream):
        self._engine = engine
        self._stream = stream
        self._own_interval: int | None = None
        self._updater: UpdateNetwork | None = None
        if engine.step is not None:
            self.apply(engine.step, engine.free)

    def step(self, frame: Frame) -> Segmentation:
        if self._updater is not None and self._updater.costs_s([frame.size]) is None:
            self.set_updater(None)  # it has failed at another camera's frame
        return self._stream.step(frame)

    def reset(self, reason: str = "requested") -> None:
        self._stream.reset(reason)

    def request_key_frame(self) -> None:
        self._stream.request_key_frame()

    def set_interval(self, interval: int | None) -> None:
        """Change the number of frames between two key frames; None leaves it to the governor."""
        self._own_interval = interval
        chosen = self._engine.step if "interval" in self._engine.free else None
        usual = self._engine.interval if chosen is None else chosen.interval
        self._stream.set_interval(usual if interval is None else interval)

    def set_confidence(self, wanted: bool) -> None:
        self._stream.set_confidence(wanted)

    def set_probabilities(self, wanted: bool) -> None:
        self._stream.set_probabilities(wanted)

    def set_overlay(self, colours: Colours | None) -> None:
        self._stream.set_overlay(colours)

    def set_updater(self, updater: UpdateNetwork | None) -> None:
        """Change what looks at propagated frames from the next frame on, while it is ready; None for nothing."""
        self._updater = updater
        self._stream.set_updater(updater)

    def apply(self, step: Step, free: Collection[str]) -> None:
        """Run at a step from the next frame on, as far as it is free."""
        if "key_frames" in free:
            self._stream.set_at_once(step.key_frames == "sync")
        if "interval" in free and self._own_interval is None:
            self._stream.set_interval(step.interval)
        if "grid_stride" in free:
            self._stream.set_grid_stride(step.grid_stride)
