"""The engine that the tests of the node use is called as the real one is."""

import inspect

import pytest

pytest.importorskip("rclpy", reason="needs ROS (extra `ros`)")

from vidseg_core.engine.protocol import EngineProtocol, StreamProtocol  # noqa: E402


def test_the_stand_in_is_an_engine(rig):
    engine = rig.StandIn()
    for protocol, found in ((EngineProtocol, engine), (StreamProtocol, engine.stream())):
        assert isinstance(found, protocol)
        for name, method in inspect.getmembers(protocol, inspect.isfunction):
            if name.startswith("_"):
                continue
            own = inspect.signature(getattr(found, name)).parameters
            expected = {key: one for key, one in inspect.signature(method).parameters.items() if key != "self"}
            assert {key: one.kind for key, one in own.items()} == {key: one.kind for key, one in expected.items()}
