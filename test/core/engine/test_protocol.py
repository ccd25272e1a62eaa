"""One protocol for the engine and for all that takes its place, and nothing that reaches behind it."""

import ast
import inspect
from pathlib import Path

import pytest

import vidseg_core
from vidseg_core.engine.engine import Engine
from vidseg_core.engine.governed import GovernedEngine, GovernedStream
from vidseg_core.engine.protocol import Capabilities, EngineProtocol, StreamProtocol, capabilities
from vidseg_core.engine.segmenter import TruthSegmenter
from vidseg_core.engine.stream import Stream
from vidseg_ros.pass_through import PassThrough, PassThroughStream

CORE = Path(vidseg_core.__file__).parent
OUTSIDE = sorted([*(CORE / "evaluation").rglob("*.py"), *(CORE / "cli").rglob("*.py"), CORE / "labelling.py"])
INSIDES = {
    "networks", "config", "classes", "background", "key_frames", "runtime", "weight_files", "segmenter", "flow",
    "refine", "updater", "feedback",
}  # fmt: skip


def differences(protocol, found):
    """Where the methods of a class cannot be called as the protocol says."""
    wrong = []
    for name, method in inspect.getmembers(protocol, inspect.isfunction):
        if name.startswith("_"):
            continue
        if not hasattr(found, name):
            wrong.append(f"{name}: missing")
            continue
        expected, got = (dict(inspect.signature(one).parameters) for one in (method, getattr(found, name)))
        for parameter, one in expected.items():
            own = got.pop(parameter, None)
            has_default = one.default is not inspect.Parameter.empty
            if own is None or own.kind is not one.kind:
                wrong.append(f"{name}: {parameter} is missing or of another kind")
            elif has_default and one.default is not ... and own.default != one.default:
                wrong.append(f"{name}: {parameter} has another default")
            elif has_default and own.default is inspect.Parameter.empty:
                wrong.append(f"{name}: {parameter} has no default")
        wrong += [f"{name}: {p} is needed" for p, own in got.items() if own.default is inspect.Parameter.empty]
    return wrong


@pytest.mark.parametrize(
    ("protocol", "found"),
    [(EngineProtocol, Engine), (EngineProtocol, PassThrough), (StreamProtocol, Stream),
     (StreamProtocol, PassThroughStream), (StreamProtocol, GovernedStream), (EngineProtocol, GovernedEngine)],
)  # fmt: skip
def test_the_protocol_is_fulfilled(protocol, found):
    assert differences(protocol, found) == []


def test_pass_through_is_an_engine():
    assert isinstance(PassThrough(), EngineProtocol)
    assert isinstance(PassThrough().stream(), StreamProtocol)


def test_a_difference_would_be_found():
    class Other(PassThroughStream):
        def reset(self):
            pass

        def set_interval(self, interval, needed):
            pass

    assert differences(StreamProtocol, Other) == [
        "reset: reason is missing or of another kind", "set_interval: needed is needed",
    ]  # fmt: skip


def test_capabilities_are_what_a_segmenter_has_of_that_name():
    class Closing:
        def close(self):
            pass

    one = Closing()
    assert capabilities(object()) == Capabilities()
    assert capabilities(one) == Capabilities(close=one.close)
    assert capabilities(TruthSegmenter(11)) == Capabilities(is_truth=True)


def assigned(source):
    """Lines that change something inside an object other than `self` and the command line's `args`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        is_changed = isinstance(node, ast.Attribute) and isinstance(node.ctx, (ast.Store, ast.Del))
        if is_changed and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "args")):
            if node.attr in INSIDES or node.attr.startswith("_"):
                found.append(node.lineno)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("setattr", "delattr"):
            found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(CORE)))
def test_nothing_outside_assigns_to_the_insides_of_an_engine(path):
    assert assigned(path.read_text(encoding="utf-8")) == []


def test_an_assignment_would_be_found():
    source = "engine.networks = 1\nself.config = 2\na.b.config = 3\nsetattr(x, 'y', 4)\nstream._state = 5\n"
    assert sorted(assigned(source)) == [1, 3, 4, 5]


@pytest.mark.parametrize("name", ["networks", "config", "classes", "key_frames", "runtime", "weight_files", "turns"])
def test_an_engine_cannot_be_assigned_to(name):
    engine = object.__new__(Engine)
    with pytest.raises(AttributeError):
        setattr(engine, name, None)


@pytest.mark.parametrize("path", sorted([*(CORE / "engine").rglob("*.py"), *OUTSIDE]), ids=lambda path: path.name)
def test_nobody_asks_which_segmenter_it_is(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            names = {one.id for one in ast.walk(node.args[1]) if isinstance(one, ast.Name)}
            assert not names & {"SegmenterProcess", "TruthSegmenter", "NetworkSegmenter"}
