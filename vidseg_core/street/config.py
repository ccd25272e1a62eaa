"""Settings of a synthetic street: seed, image size, frame rate, number of frames."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from vidseg_core.errors import ConfigError

TRAIN_SEEDS = range(1000, 2000)
MIN_WIDTH, MIN_HEIGHT = 320, 240
MAX_SIDE = 8192
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class StreetConfig:
    """A drive along one synthetic street; equal configurations give identical frames.

    Attributes:
        seed: which street, 0 .. 2**31 - 1. `TRAIN_SEEDS` are for training, seeds below 1000 for demo and evaluation.
        width: of the image in pixels, 320 .. 8192.
        height: of the image in pixels, 240 .. 8192.
        rate_hz: frames per second, above 0.
        num_frames: length of the drive, at least 1.

    Raises:
        ConfigError: a value is of the wrong type or out of range.
    """

    seed: int = 0
    width: int = 640
    height: int = 360
    rate_hz: float = 30.0
    num_frames: int = 600

    def __post_init__(self):
        _check_integer("seed", self.seed, 0, MAX_SEED)
        _check_integer("width", self.width, MIN_WIDTH, MAX_SIDE)
        _check_integer("height", self.height, MIN_HEIGHT, MAX_SIDE)
        _check_integer("frames", self.num_frames, 1, None)
        rate = self.rate_hz
        if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not (math.isfinite(rate) and rate > 0):
            raise ConfigError(f"street: expected a rate above 0 Hz, got {rate!r}")

    @classmethod
    def parse(cls, spec: str) -> StreetConfig:
        """The configuration written as `street:seed=3,size=640x360,rate=30,frames=600`; every key may be left out.

        Raises:
            ConfigError: not of this form, an unknown or repeated key, or a value that is out of range.
        """
        head, _, body = spec.partition(":")
        if head != "street":
            raise ConfigError(f"expected street:key=value,... , got {spec!r}")
        values: dict[str, str] = {}
        for item in filter(None, (part.strip() for part in body.split(","))):
            key, equals, value = (part.strip() for part in item.partition("="))
            if not equals or not value:
                raise ConfigError(f"{spec!r}: expected key=value, got {item!r}")
            if key not in _READERS:
                raise ConfigError(f"{spec!r}: unknown key {key!r}: expected one of {sorted(_READERS)}")
            if key in values:
                raise ConfigError(f"{spec!r}: key {key!r} is given twice")
            values[key] = value
        fields: dict = {}
        for key, value in values.items():
            try:
                fields.update(_READERS[key](value))
            except ValueError as error:
                raise ConfigError(f"{spec!r}: expected {key} as {_FORMS[key]}, got {value!r}") from error
        return replace(cls(), **fields)

    def __str__(self) -> str:
        return f"street:seed={self.seed},size={self.width}x{self.height},rate={self.rate_hz:g},frames={self.num_frames}"


def _check_integer(name: str, value, low: int, high: int | None):
    wanted = f"at least {low}" if high is None else f"{low} .. {high}"
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"street: expected {name} as an integer, {wanted}, got {value!r}")
    if value < low or (high is not None and value > high):
        raise ConfigError(f"street: expected {name} {wanted}, got {value}")


def _read_size(text: str) -> dict:
    width, height = text.lower().split("x")
    return {"width": int(width), "height": int(height)}


_READERS = {
    "seed": lambda text: {"seed": int(text)},
    "size": _read_size,
    "rate": lambda text: {"rate_hz": float(text)},
    "frames": lambda text: {"num_frames": int(text)},
}
_FORMS = {"seed": "an integer", "size": "WIDTHxHEIGHT", "rate": "a number in Hz", "frames": "an integer"}
