"""Streets that were drawn before, packed in files: images and labels as PNG, drawn by as many processes as may run."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import zipfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

import cv2
import numpy as np

from vidseg_core.frame import Frame
from vidseg_core.street.config import StreetConfig
from vidseg_core.street.sequence import Street
from vidseg_core.threads import available_threads

log = logging.getLogger(__name__)
MOST_BYTES = 8 << 30
"""Of all packs; the ones that were used longest ago make room."""
FEW_PIXELS = 20_000_000
"""Of all frames of a street; fewer are drawn at once, by one process."""
CHUNK = 4


def packs_directory() -> Path:
    """Return where packs are kept: `$XDG_CACHE_HOME/vidseg/streets`, or else `~/.cache/vidseg/streets`."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "vidseg" / "streets"


def packed_frames(config: StreetConfig) -> Iterator[Frame]:
    """Yield the frames of a street without their flow, from its pack; without one, draw and pack them.

    A pack that cannot be written is left out, with a warning.
    """
    if config.width * config.height * config.num_frames < FEW_PIXELS:
        street = Street(config)
        yield from (street.render(i) for i in range(config.num_frames))
        return
    path = packs_directory() / f"{_key(config)}.zip"
    if path.is_file():
        path.touch()
        for i, (image, labels) in enumerate(_unpack(path, config.num_frames)):
            yield _frame(config, i, image, labels)
        return
    partial = path.with_suffix(f".{os.getpid()}.part")
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        pack = zipfile.ZipFile(partial, "w")
    except OSError as error:
        log.warning("the street is drawn anew each time: %s", error)
        yield from (_frame(config, i, *_decoded(drawn)) for i, drawn in enumerate(_drawn(config)))
        return
    try:
        with pack:
            for i, drawn in enumerate(_drawn(config)):
                for name, data in zip(_names(i), drawn, strict=True):
                    pack.writestr(name, data)
                yield _frame(config, i, *_decoded(drawn))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)  # where it was not drawn to its end
    _make_room(path)


def _frame(config: StreetConfig, i: int, image: np.ndarray, labels: np.ndarray) -> Frame:
    return Frame(image, round(i * 1e9 / config.rate_hz), name=f"{i:06d}", labels=labels)


def _names(i: int) -> tuple[str, str]:
    return f"{i:06d}.png", f"{i:06d}_labels.png"


def _drawn(config: StreetConfig) -> Iterator[tuple[bytes, bytes]]:
    """Yield each frame's image and labels as PNG files, in order."""
    # Processes that are forked while others' threads run may hang; these begin afresh.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(available_threads(), context) as pool:
        yield from pool.map(_draw, [(config, i) for i in range(config.num_frames)], chunksize=CHUNK)


@cache
def _street(config: StreetConfig) -> Street:
    return Street(config)


def _draw(task: tuple[StreetConfig, int]) -> tuple[bytes, bytes]:
    frame = _street(task[0]).render(task[1])
    image = cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)
    files = (cv2.imencode(".png", one, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1] for one in (image, frame.labels))
    first, second = (one.tobytes() for one in files)
    return first, second


def _decoded(files: tuple[bytes, bytes]) -> tuple[np.ndarray, np.ndarray]:
    image, labels = (cv2.imdecode(np.frombuffer(one, np.uint8), cv2.IMREAD_UNCHANGED) for one in files)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), labels


def _unpack(path: Path, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    with zipfile.ZipFile(path) as pack:
        for i in range(count):
            image, labels = (pack.read(name) for name in _names(i))
            yield _decoded((image, labels))


def _key(config: StreetConfig) -> str:
    """Name a pack: by the configuration, and by the code that draws."""
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    spec = f"{config.seed}_{config.width}x{config.height}_{config.rate_hz:g}_{config.num_frames}"
    return f"{spec}_{digest.hexdigest()[:12]}"


def _make_room(newest: Path) -> None:
    packs = sorted(newest.parent.glob("*.zip"), key=lambda path: path.stat().st_mtime, reverse=True)
    held = 0
    for path in packs:
        held += path.stat().st_size
        if held > MOST_BYTES and path != newest:
            path.unlink(missing_ok=True)
