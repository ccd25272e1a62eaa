"""Ways to compute key frames: the stream waits, or results come some frames later, or when a thread has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from vidseg_core.arrays import Array
from vidseg_core.frame import Frame

Result = TypeVar("Result")
Result_co = TypeVar("Result_co", covariant=True)


@dataclass(frozen=True)
class KeyFrameWork(Generic[Result]):
    """The work of a key frame, part of which others of other streams may share.

    Attributes:
        work: (frame, its scores, or None to have them computed) -> the result.
        together: see `Capabilities`.
    """

    work: Callable[[Frame, Array | None], Result]
    together: Callable[[Sequence[Frame]], list[Array]] | None = None

    def __call__(self, frame: Frame) -> Result:
        return self.work(frame, None)


class Job(Protocol[Result_co]):
    """One key frame under way."""

    def poll(self) -> Result_co | None:
        """The result if it is there. Called once for every frame after the key frame until it is.

        Raises what the work has raised.
        """

    def wait(self) -> Result_co:
        """The result. Raises what the work has raised."""

    def discard(self) -> None:
        """Drop the result: nobody wants it any more."""


class KeyFrames(Protocol):
    """A way to compute key frames.

    Attributes:
        at_once: whether the stream waits for them; it does in any case where it has nothing to carry on.
    """

    at_once: bool

    def frame(self) -> AbstractContextManager:
        """A stream is at a frame: what goes on beside it, gives way to it meanwhile."""

    def busy_s(self) -> float:
        """Return for how many seconds a key frame beside the streams has been under way; 0 if none is."""

    def begin(self, work: Callable[[Frame], Result], frame: Frame) -> Job[Result]:
        """Have `work` done on a frame, perhaps in another thread; the frame's image may change afterwards."""


class Delayed:
    """The result is there `delay` frames later, however long it takes: the same labels every time.

    Args:
        delay: in frames, 1 or more.
        frame: see `AtOnce`.

    Raises:
        ValueError: it is not.
    """

    at_once = False

    def __init__(self, delay: int, frame: Callable[[], AbstractContextManager] = nullcontext):
        self.frame = frame
        if delay < 1:
            raise ValueError(f"delay: expected 1 or more frames, got {delay}")
        self._delay = delay

    def busy_s(self) -> float:
        return 0.0

    def begin(self, work: Callable[[Frame], Result], frame: Frame) -> DelayedJob[Result]:
        return DelayedJob(work, replace(frame, image=frame.image.copy()), self._delay)


class DelayedJob(Generic[Result]):
    def __init__(self, work: Callable[[Frame], Result], frame: Frame, delay: int):
        self._work = work
        self._frame = frame
        self._remaining = delay

    def poll(self) -> Result | None:
        self._remaining -= 1
        return None if self._remaining > 0 else self.wait()

    def wait(self) -> Result:
        return self._work(self._frame)

    def discard(self) -> None:
        """Nothing is under way."""


class AtOnce:
    """The stream waits.

    Args:
        frame: makes the context of each frame, such as the device that its operations are for.
    """

    at_once = True

    def __init__(self, frame: Callable[[], AbstractContextManager] = nullcontext):
        self.frame = frame

    def busy_s(self) -> float:
        return 0.0

    def begin(self, work: Callable[[Frame], Result], frame: Frame) -> DelayedJob[Result]:
        return DelayedJob(work, frame, 0)
