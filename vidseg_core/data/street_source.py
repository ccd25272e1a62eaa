"""The synthetic street as a source of frames."""

from __future__ import annotations

from collections.abc import Iterator

from vidseg_core.classes import load_classes
from vidseg_core.data.source import Source
from vidseg_core.errors import SourceError
from vidseg_core.frame import Frame


class StreetSource(Source):
    """The synthetic street, whose frames come with exact labels and flow."""

    def __init__(self, spec: str):
        from vidseg_core.street import Street, StreetConfig

        self._config = StreetConfig.parse(spec)
        self._street = Street(self._config)
        super().__init__("street", self._config.rate_hz, self._config.num_frames, False, load_classes("camvid"))

    def _read(self) -> Iterator[tuple[str, Frame | SourceError]]:
        for index in range(self._config.num_frames):
            frame = self._street.render(index)
            yield frame.name, frame
