"""Options, declared once: a field of a dataclass says its default, type, range and help, and all else is derived.

    @dataclass(frozen=True)
    class Settings:
        interval: int = option(4, "Number of propagated frames between two key frames.", low=0, live=True)

        def __post_init__(self):
            check(self)

`check` validates such an object, `options_of` lists the options of such a class: command line flags, ROS parameters,
the parameter file and the reference are made from that list. This module imports nothing heavy.
"""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from functools import cache
from typing import Any

from vidseg_core.errors import ConfigError

_KEY = "option"
AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a dataclass.

    Attributes:
        name: of the field.
        type: bool, int, float, str or list; of what is not None.
        default: also None, where `optional`.
        optional: whether None is a value: it stands for "not given".
        help: sentences for people; other options stand in backticks.
        unset: words for what happens without a value, where `optional`.
        low, high: the smallest and the largest number allowed; None where there is no such limit.
        above: numbers have to be larger than this; None where there is no such limit.
        unit: of a number, in words.
        span: (low, high) for interfaces whose ranges need two ends; None where `low` and `high` are not both given.
        choices: the values allowed, where they can be listed.
        pattern, expected: regular expression of all values allowed, and the same in words.
        live: whether it may change while frames are processed.
        per_camera: whether each camera may have its own value.
        metavar: placeholder of a value in command line help.
        spellings: command line flags that were written before, which still work with a notice.
        auto: whether None is a choice of its own, made anew for each picture or while frames are processed; written as
            the word auto.
        governed: whether the node chooses it while frames are processed, unless it is given.
    """

    name: str
    type: type
    default: Any
    optional: bool
    help: str
    unset: str = ""
    low: float | None = None
    high: float | None = None
    above: float | None = None
    unit: str = ""
    span: tuple[float, float] | None = None
    choices: tuple = ()
    pattern: str = ""
    expected: str = ""
    live: bool = False
    per_camera: bool = False
    metavar: str = ""
    spellings: tuple[str, ...] = ()
    auto: bool = False
    governed: bool = False

    def check(self, value: Any) -> None:
        """Check type, range and choice of a value.

        Raises:
            ConfigError: the value is not allowed.
        """
        if value is None and self.optional:
            return
        or_auto = f"{AUTO} or " if self.auto else ""
        if self.choices:
            good, expected = value in self.choices, f"one of {', '.join(map(str, self.choices))}"
        elif self.pattern:
            good, expected = isinstance(value, str) and re.fullmatch(self.pattern, value) is not None, self.expected
        elif self.type is float:
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            good, expected = number and self._in_range(value), self._range()
        elif type(value) is self.type:
            good, expected = self.type is not int or self._in_range(value), self._range()
        else:
            good, expected = False, f"a value of type {self.type.__name__}"
        if not good:
            raise ConfigError(f"{self.name}: expected {or_auto}{expected}, got {value!r}")

    def _in_range(self, value: float) -> bool:
        # NaN is in no range: comparisons with it are false.
        return (
            value == value
            and (self.low is None or value >= self.low)
            and (self.high is None or value <= self.high)
            and (self.above is None or value > self.above)
        )

    def _range(self) -> str:
        number = f"a number of {self.unit}" if self.unit else "a number"
        if self.above is not None:
            number += f" above {self.above:g}"
        if self.low is not None and self.high is not None:
            return f"{number} in {self.low:g}..{self.high:g}"
        if self.low is not None:
            return f"{self.low:g} or more"
        return number if self.high is None else f"{number} of at most {self.high:g}"


def option(default: Any, help: str, **about: Any) -> Any:
    """Declare an option; use it as the default of a dataclass's field.

    Args:
        default: its default value; None for an option that need not be given.
        help: sentences for people, ending in a full stop.
        about: see `Option`; what is left out has the default there.

    Raises:
        TypeError: `about` names something that `Option` does not have.
    """
    known = {field.name for field in dataclasses.fields(Option)} - {"name", "type", "default", "optional", "help"}
    if unknown := sorted(about.keys() - known):
        raise TypeError(f"option: expected {', '.join(sorted(known))}, got {', '.join(unknown)}")
    metadata = {_KEY: {"help": help, **about}}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@cache
def options_of(cls: type) -> dict[str, Option]:
    """List the options of a dataclass by name, in the order of its fields.

    Raises:
        TypeError: a field is not declared by `option`, or has a type that no option can have.
    """
    hints = typing.get_type_hints(cls)
    found = {}
    for field in dataclasses.fields(cls):
        if _KEY not in field.metadata:
            raise TypeError(f"{cls.__name__}.{field.name}: expected a field declared by option()")
        kind, optional = _kind(hints[field.name], f"{cls.__name__}.{field.name}")
        default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
        about = dict(field.metadata[_KEY])
        if about.get("low") is not None and about.get("high") is not None:
            about.setdefault("span", (about["low"], about["high"]))
        found[field.name] = Option(name=field.name, type=kind, default=default, optional=optional, **about)
    return found


def check(settings: Any) -> None:
    """Check every value of a dataclass of options by itself.

    Raises:
        ConfigError: a value is not allowed.
    """
    for name, one in options_of(type(settings)).items():
        one.check(getattr(settings, name))


def _kind(hint: Any, name: str) -> tuple[type, bool]:
    """Split a field's type into the type of a value and whether None is allowed."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    members = typing.get_args(hint) if union else (hint,)
    kinds = [typing.get_origin(one) or one for one in members if one is not type(None)]
    if len(kinds) != 1 or kinds[0] not in (bool, int, float, str, list):
        raise TypeError(f"{name}: expected bool, int, float, str or list, perhaps with None, got {hint}")
    return kinds[0], len(members) > 1
