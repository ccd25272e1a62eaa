"""The synthetic street as a source of frames."""

from __future__ import annotations

from collections.abc import Iterator

from vidseg_core.classes import load_classes
from vidseg_core.data.source import Source
from vidseg_core.errors import SourceError
from vidseg_core.frame import Frame


class StreetSource(Source):
    """The synthetic street, whose frames come with exact labels and flow.

    Args:
        spec: see `StreetConfig.parse`.
        packed: keep what was drawn on disk, and draw with all processors; frames come without flow then.
    """

    def __init__(self, spec: str, packed: bool = False):
        from vidseg_core.street import Street, StreetConfig

        self._config = StreetConfig.parse(spec)
        self._street = Street(self._config)
        self._packed = False  # not for the first frame alone, which tells the size
        super().__init__("street", self._config.rate_hz, self._config.num_frames, False, load_classes("camvid"))
        self._packed = packed

    def _read(self) -> Iterator[tuple[str, Frame | SourceError]]:
        from vidseg_core.street.pack import packed_frames

        drawn = (self._street.render(index) for index in range(self._config.num_frames))
        for frame in packed_frames(self._config) if self._packed else drawn:
            yield frame.name, frame
