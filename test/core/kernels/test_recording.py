"""CUDA graphs are recorded in an order that a card allows; the card's own calls are stood in for."""

from contextlib import contextmanager

import pytest
import torch

from vidseg_core.kernels.recording import WARM_UP_CALLS, CudaGraphs


class Card:
    """Notes what it is asked for."""

    def __init__(self):
        self.events = []

    def stream(self, name):
        card = self

        class Stream:
            def wait_stream(self, other):
                card.events.append(f"{name} waits")

        return Stream()

    @contextmanager
    def inside(self, what):
        self.events.append(what)
        try:
            yield
        finally:
            self.events.append(f"end of {what}")


@pytest.fixture
def card(monkeypatch):
    card = Card()
    graph = type("Graph", (), {"replay": lambda self: card.events.append("replay")})

    def capture(graph, stream, capture_error_mode):
        assert capture_error_mode == "thread_local"  # key frames go on meanwhile
        return card.inside("recording")

    parts = {
        "CUDAGraph": graph, "current_stream": lambda device: card.stream("current"),
        "Stream": lambda device: card.stream("beside"), "stream": lambda stream: card.inside("beside"),
        "graph": capture,
    }  # fmt: skip
    for name, part in parts.items():
        monkeypatch.setattr(torch.cuda, name, part)
    return card


def test_work_is_done_before_it_is_recorded(card):
    replay, made = CudaGraphs(torch.device("cuda")).record(lambda: card.events.append("work") or "made")
    assert made == "made"
    replay()
    assert card.events == [
        "beside waits", "beside", *["work"] * WARM_UP_CALLS, "recording", "work", "end of recording", "end of beside",
        "current waits", "replay",
    ]  # fmt: skip


def test_what_fails_is_waited_for_and_said_once(card, caplog):
    def fails():
        raise RuntimeError("operation not permitted when stream is capturing")

    caplog.set_level("INFO")
    graphs = CudaGraphs(torch.device("cuda"))
    with pytest.raises(RuntimeError, match="not permitted"):
        graphs.record(fails)
    assert card.events == ["beside waits", "beside", "end of beside", "current waits"]
    graphs.refuse("not permitted")
    graphs.refuse("not permitted")
    assert caplog.text.count("not recorded as one CUDA graph: not permitted") == 1
