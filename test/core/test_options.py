"""An option says once all that command line, ROS parameters and documents need."""

import subprocess
import sys
from dataclasses import dataclass

import pytest

from vidseg_core.engine.config import EngineConfig
from vidseg_core.errors import ConfigError
from vidseg_core.options import check, option, options_of


@dataclass(frozen=True)
class Settings:
    number: int = option(3, "A number.", low=0, span=(0, 9), live=True)
    share: float = option(0.5, "A share.", low=0.0, high=1.0)
    pause_s: float = option(1.0, "A pause.", above=0, unit="seconds")
    count: int = option(1, "A count.", low=1, high=4)
    most: float = option(1.0, "A limit.", high=2.0)
    name: str | None = option(None, "A name.", unset="none", per_camera=True)
    mode: int | None = option(None, "A mode.", choices=(2, 4))
    address: str = option("a:1", "An address.", pattern="[a-z]:[0-9]+", expected="LETTER:NUMBER")
    on: bool = option(True, "A switch.")
    names: list[str] = option([""], "Names.")


def test_a_list_of_options_has_types_and_defaults():
    found = options_of(Settings)
    assert list(found) == "number share pause_s count most name mode address on names".split()
    kinds = {name: (one.type, one.optional, one.default) for name, one in found.items()}
    assert kinds["number"] == (int, False, 3) and kinds["share"] == (float, False, 0.5)
    assert kinds["name"] == (str, True, None) and kinds["mode"] == (int, True, None)
    assert kinds["names"] == (list, False, [""]) and kinds["on"] == (bool, False, True)
    assert (found["number"].live, found["name"].live) == (True, False)
    assert (found["number"].per_camera, found["name"].per_camera) == (False, True)
    assert found["name"].help == "A name." and found["name"].unset == "none"


def test_two_ends_are_those_allowed_unless_others_are_given():
    found = options_of(Settings)
    spans = [found[name].span for name in ("number", "share", "pause_s", "most", "name")]
    assert spans == [(0, 9), (0.0, 1.0), None, None, None]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"number": 10_000},
        {"share": 1},
        {"share": 0.0},
        {"pause_s": float("inf")},
        {"count": 4},
        {"most": -5},
        {"name": "x"},
        {"mode": 4},
        {"address": "b:22"},
        {"names": []},
    ],
)
def test_good_values(values):
    check(Settings(**values))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"number": -1}, "number: expected 0 or more, got -1"),
        ({"number": 1.0}, "number: expected a value of type int, got 1.0"),
        ({"number": True}, "number: expected a value of type int, got True"),
        ({"number": None}, "number: expected a value of type int, got None"),
        ({"share": 1.5}, "share: expected a number in 0..1, got 1.5"),
        ({"share": float("nan")}, "share: expected a number in 0..1, got nan"),
        ({"share": True}, "share: expected a number in 0..1, got True"),
        ({"pause_s": 0}, "pause_s: expected a number of seconds above 0, got 0"),
        ({"count": 5}, "count: expected a number in 1..4, got 5"),
        ({"most": 2.5}, "most: expected a number of at most 2, got 2.5"),
        ({"name": 7}, "name: expected a value of type str, got 7"),
        ({"mode": 3}, "mode: expected one of 2, 4, got 3"),
        ({"address": "a:"}, "address: expected LETTER:NUMBER, got 'a:'"),
        ({"address": 1}, "address: expected LETTER:NUMBER, got 1"),
        ({"on": 1}, "on: expected a value of type bool, got 1"),
        ({"names": "a"}, "names: expected a value of type list, got 'a'"),
    ],
)
def test_bad_values(values, message):
    with pytest.raises(ConfigError) as caught:
        check(Settings(**values))
    assert str(caught.value) == message


def test_lists_are_not_shared():
    assert Settings().names == [""] and Settings().names is not Settings().names


def test_what_is_misdeclared_is_refused():
    with pytest.raises(TypeError, match=r"option: expected .*low.*, got lowest"):
        option(1, "A number.", lowest=0)

    @dataclass
    class Plain:
        number: int = 1

    with pytest.raises(TypeError, match=r"Plain.number: expected a field declared by option\(\)"):
        options_of(Plain)

    @dataclass
    class Odd:
        number: dict = option(None, "A number.")

    with pytest.raises(TypeError, match="Odd.number: expected bool, int, float, str or list"):
        options_of(Odd)


def test_every_option_of_the_engine_is_described():
    for one in options_of(EngineConfig).values():
        assert one.help.endswith("."), one.name
        assert bool(one.unset) == one.optional, one.name


def test_nothing_heavy_is_imported():
    code = "import sys, vidseg_core.options, vidseg_core.engine.config; print({'torch', 'numba'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
