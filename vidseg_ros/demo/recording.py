"""Messages that a demo run heard: which came when, the pictures on disk meanwhile, and what can be said of them all."""

from __future__ import annotations

import bisect
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import zstandard

from vidseg_core.classes import ClassTable
from vidseg_core.evaluation.metrics.confusion import ConfusionMatrix
from vidseg_core.evaluation.metrics.distribution import distribution

MOST_BYTES = 8_000_000_000
WIDEST = 1280
"""Of overlays that are kept, in pixels: a video that any screen shows."""
FASTEST = -1
"""Level of zstandard: 0.3 ms for the class ids of 1920 x 1080 pixels, less than writing them would take."""


class Track:
    """The messages of one topic, in the order in which they came."""

    def __init__(self):
        self.stamps_ns: list[int] = []
        self.arrivals_ns: list[int] = []

    def __len__(self) -> int:
        return len(self.stamps_ns)

    def add(self, stamp_ns: int, arrival_ns: int) -> None:
        """Note a message; both times are of the same clock."""
        self.stamps_ns.append(stamp_ns)
        self.arrivals_ns.append(arrival_ns)

    def latencies_ms(self) -> np.ndarray:
        """Return the time from stamp to arrival of each message."""
        return (np.array(self.arrivals_ns, np.int64) - np.array(self.stamps_ns, np.int64)) / 1e6

    def since(self, time_ns: int) -> Track:
        """Return the part that has come from then on."""
        first = bisect.bisect_left(self.arrivals_ns, time_ns)
        part = Track()
        part.stamps_ns, part.arrivals_ns = self.stamps_ns[first:], self.arrivals_ns[first:]
        return part

    def is_in_order(self) -> bool:
        """Tell if each stamp is above the one before."""
        return all(later > earlier for earlier, later in zip(self.stamps_ns, self.stamps_ns[1:], strict=False))


class Spool:
    """Pictures by stamp, in a file without a name: it is gone with the process.

    Written as they come, those of a large camera would keep a core and a disk busy, beside the node that is judged.
    So class ids are compressed without loss, to about a hundredth of their size, and colours are halved in height and
    width until the picture is at most `WIDEST` pixels wide.

    Args:
        folder: on the disk that shall hold it.
        most_bytes: more are not taken.

    Attributes:
        num_refused: pictures for which there was no room.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES):
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (lives as long as this)
        self._places: dict[tuple[str, int], tuple[int, int, tuple[int, int, int]]] = {}
        self._num_bytes = 0
        self._most_bytes = most_bytes
        self._compressor = zstandard.ZstdCompressor(level=FASTEST)
        self._decompressor = zstandard.ZstdDecompressor()
        self.num_refused = 0

    def put(self, topic: str, stamp_ns: int, pixels: np.ndarray) -> None:
        """Keep a picture, while there is room; then no more, so that what was kept belongs together.

        Args:
            pixels: H x W x 1, class ids, or H x W x 3, RGB; uint8.
        """
        if self.num_refused:
            self.num_refused += 1
            return
        pixels = np.ascontiguousarray(pixels)
        if pixels.shape[2] == 1:
            kept, shape = self._compressor.compress(pixels), pixels.shape
        else:
            kept = shrink(pixels)
            shape = kept.shape
        num_bytes = memoryview(kept).nbytes
        if self._num_bytes + num_bytes > self._most_bytes:
            self.num_refused += 1
            return
        self._file.seek(self._num_bytes)
        self._file.write(kept)
        self._places[topic, stamp_ns] = self._num_bytes, num_bytes, shape
        self._num_bytes += num_bytes

    def pixels(self, topic: str, stamp_ns: int) -> np.ndarray | None:
        """Read a picture as it was kept, H x W x 1 or 3, uint8; None if it was not."""
        place = self._places.get((topic, stamp_ns))
        if place is None:
            return None
        offset, num_bytes, shape = place
        self._file.seek(offset)
        kept = self._file.read(num_bytes)
        return np.frombuffer(self._decompressor.decompress(kept) if shape[2] == 1 else kept, np.uint8).reshape(shape)

    def stamps_ns(self, topic: str) -> list[int]:
        """Return the stamps of the pictures that were kept, in ascending order."""
        return sorted(stamp for name, stamp in self._places if name == topic)

    def close(self) -> None:
        self._file.close()


def shrink(picture: np.ndarray) -> np.ndarray:
    """Halve a picture in height and width until it is at most `WIDEST` pixels wide; an odd last row or column goes."""
    while picture.shape[1] > WIDEST and picture.shape[0] > 1:
        height, width = picture.shape[0] // 2, picture.shape[1] // 2
        picture = cv2.resize(picture[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return picture


class Recording:
    """All that came in one run.

    Args:
        folder: on the disk that shall hold the pictures meanwhile.
        most_bytes: of these; what comes later counts in the statistics only.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES):
        self.sent = Track()
        self.labels = Track()
        self.overlays = Track()
        self.spool = Spool(folder, most_bytes)

    def problems(self) -> list[str]:
        """List what must not be: no labels, or labels and overlays that do not belong to the frames that were sent."""
        if not len(self.labels):
            return ["no labels came"]
        found, sent = [], set(self.sent.stamps_ns)
        for name, track in (("labels", self.labels), ("overlay", self.overlays)):
            strange = [stamp for stamp in track.stamps_ns if stamp not in sent]
            if strange:
                found.append(
                    f"{len(strange)} of {len(track)} messages on {name} have a stamp that no frame of the camera had, "
                    f"the first {strange[0]} ns"
                )
            if not track.is_in_order():
                found.append(f"stamps on {name} are repeated or out of order")
        return found

    def statistics(self) -> dict:
        """Return rates in Hz while the camera sent, and latency from a frame's stamp to its labels' arrival."""
        span_s = (self.sent.stamps_ns[-1] - self.sent.stamps_ns[0]) / 1e9 if len(self.sent) > 1 else 0.0
        input_hz = (len(self.sent) - 1) / span_s if span_s > 0 else None
        labelled = len(set(self.labels.stamps_ns) & set(self.sent.stamps_ns))
        return {
            "input_hz": rounded(input_hz, 2),
            "output_hz": rounded(input_hz * labelled / len(self.sent), 2) if input_hz else None,
            "latency_ms": percentiles(self.labels.latencies_ms()),
            "dropped": len(self.sent) - labelled,
            "frames": {"sent": len(self.sent), "labelled": labelled, "overlays": len(self.overlays)},
        }

    def mean_iou(
        self, classes: ClassTable, progress: Callable[[Iterable[int]], Iterable[int]] = iter
    ) -> tuple[float | None, int]:
        """Return mean IoU (0..1) of labels against the ground truth of the same stamp, and the number of images."""
        matrix, count = ConfusionMatrix(len(classes)), 0
        for stamp_ns in progress(self.spool.stamps_ns("labels_truth")):
            labels = self.spool.pixels("labels", stamp_ns)
            if labels is not None:
                matrix.update(labels[..., 0], self.spool.pixels("labels_truth", stamp_ns)[..., 0])
                count += 1
        return (matrix.mean_iou() if matrix.num_pixels else None), count

    def shown(self) -> Iterator[np.ndarray]:
        """Give the pictures shown, H x W x 3 uint8 RGB: from the first overlay to the last that was kept, for
        each frame of the camera its overlay, or the one before where it was dropped."""
        kept = self.spool.stamps_ns("overlay")
        picture = None
        for stamp_ns in sorted(stamp for stamp in set(self.sent.stamps_ns) if kept and kept[0] <= stamp <= kept[-1]):
            overlay = self.spool.pixels("overlay", stamp_ns)
            picture = picture if overlay is None else overlay
            if picture is not None:
                yield picture


def percentiles(milliseconds: np.ndarray) -> dict[str, float | None]:
    """Return p50, p95 and the largest."""
    return distribution(milliseconds, (50, 95, 100), 2)


def rounded(value: float | None, digits: int) -> float | None:
    """Round; None stays None, and nan becomes None."""
    return None if value is None or np.isnan(value) else round(value, digits)
