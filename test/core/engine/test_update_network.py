"""An update network is there while it is wanted, and nothing waits for it."""

import threading

import numpy as np
import pytest

from vidseg_core.engine.update_network import UpdateNetwork
from vidseg_core.frame import Frame

SIZE, OTHER = (64, 80), (96, 128)
DEADLINE_S = 60


class Process:
    """Stands for `SegmenterProcess`; is ready once `compiled` is set."""

    def __init__(self, compiled=None, error=None):
        self.compiled, self.error = compiled, error
        self.asked, self.seen, self.closed = threading.Event(), [], False

    def prepare(self, size):
        if self.error is not None:
            raise RuntimeError(self.error)
        ready = self.compiled is None or self.compiled.is_set()
        self.asked.set()
        return ready

    def __call__(self, frame):
        if self.closed:
            raise RuntimeError("the segmenter's process is closed")
        if self.error is not None:
            raise RuntimeError(self.error)
        self.seen.append(frame.size)
        return np.full((1, 3, 2, 2), len(self.seen), np.float32)

    def close(self):
        self.closed = True


class Starts:
    """Gives those processes, one after the other."""

    def __init__(self, *processes):
        self.waiting, self.started = list(processes), []

    def __call__(self):
        self.started.append(self.waiting.pop(0))
        return self.started[-1]


def until_done(network):
    thread = network._getting_ready
    if thread is not None:
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


def test_it_begins_when_it_is_asked_for_and_tells_what_a_call_takes():
    starts = Starts(Process(), Process())
    network = UpdateNetwork(starts, 3, True)
    assert (network.num_classes, network.half_pixel, starts.started) == (3, True, [])
    with pytest.raises(RuntimeError, match="not ready"):
        network(Frame(np.zeros((*SIZE, 3), np.uint8), 0))
    network.ask([SIZE])
    until_done(network)
    assert network.costs_s([SIZE]) > 0
    assert network.costs_s([SIZE, OTHER]) is None and network.costs_s([]) is None
    network.ask([SIZE, OTHER])
    until_done(network)
    assert network.costs_s([SIZE, OTHER]) == max(network.costs_s([SIZE]), network.costs_s([OTHER]))
    before = len(starts.started[0].seen)
    assert network(Frame(np.zeros((*SIZE, 3), np.uint8), 0))[0, 0, 0, 0] == before + 1
    assert [process.closed for process in starts.started] == [False, True]


def test_the_process_that_compiled_it_makes_room_for_one_that_reads_it():
    compiled = threading.Event()
    starts = Starts(Process(compiled), Process())
    network = UpdateNetwork(starts, 3, False)
    network.ask([SIZE])
    first = starts.waiting[0] if not starts.started else starts.started[0]
    assert first.asked.wait(DEADLINE_S) and network.costs_s([SIZE]) is None
    compiled.set()
    until_done(network)
    assert first.closed and first.seen == [] and network.costs_s([SIZE]) > 0
    assert set(starts.started[1].seen) == {SIZE} and not starts.started[1].closed


def test_while_a_process_is_in_use_another_one_compiles_for_another_size():
    compiled = threading.Event()
    process, other = Process(), Process(compiled)
    network = UpdateNetwork(Starts(process, other), 3, False)
    network.ask([SIZE])
    until_done(network)
    process.asked.clear()
    network.ask([SIZE, OTHER])
    assert other.asked.wait(DEADLINE_S) and network.costs_s([SIZE]) is not None
    compiled.set()
    until_done(network)
    assert network.costs_s([SIZE, OTHER]) is not None and not process.asked.is_set()
    assert (process.closed, other.closed, other.seen) == (False, True, [])


def test_closed_while_another_one_compiles_both_end(caplog):
    process, other = Process(), Process(threading.Event())
    network = UpdateNetwork(Starts(process, other), 3, False)
    network.ask([SIZE])
    until_done(network)
    network.ask([OTHER])
    assert other.asked.wait(DEADLINE_S)
    network.close()
    until_done(network)
    assert process.closed and other.closed and caplog.records == []


def test_it_is_let_go_of_and_begins_again():
    starts = Starts(Process(), Process())
    network = UpdateNetwork(starts, 3, False)
    network.let_go()
    network.ask([SIZE])
    until_done(network)
    network.let_go()
    assert starts.started[0].closed and network.costs_s([SIZE]) is None
    network.ask([SIZE])
    until_done(network)
    assert network.costs_s([SIZE]) is not None and len(starts.started) == 2


def test_what_fails_is_said_once_and_not_tried_again(caplog):
    starts = Starts(Process(error="no such network"), Process())
    network = UpdateNetwork(starts, 3, False)
    for _ in range(2):
        network.ask([SIZE])
        until_done(network)
    assert network.costs_s([SIZE]) is None and len(starts.started) == 1
    (record,) = caplog.records
    assert record.getMessage() == "the update network is not used for pictures of 80 x 64: no such network"
    assert starts.started[0].closed and network.refuses([SIZE, OTHER]) and not network.refuses([OTHER])


def test_what_fails_for_one_size_stays_for_another():
    process = Process()
    network = UpdateNetwork(Starts(process), 3, False)
    network.ask([SIZE])
    until_done(network)
    network._start.waiting.append(Process(error="no such network"))
    network.ask([SIZE, OTHER])
    until_done(network)
    assert network.refuses([OTHER]) and network.costs_s([SIZE]) is not None and not process.closed


def test_what_fails_at_a_frame_is_made_ready_again():
    starts = Starts(Process(), Process())
    network = UpdateNetwork(starts, 3, False)
    network.ask([SIZE])
    until_done(network)
    starts.started[0].error = "was ended by SIGKILL"
    with pytest.raises(RuntimeError, match="was ended by SIGKILL"):
        network(Frame(np.zeros((*SIZE, 3), np.uint8), 0))
    assert starts.started[0].closed and network.costs_s([SIZE]) is None and not network.refuses([SIZE])
    network.ask([SIZE])
    until_done(network)
    assert network.costs_s([SIZE]) is not None and not starts.started[1].closed


def test_closed_while_it_is_compiled_it_ends_silently(caplog):
    process = Process(threading.Event())
    network = UpdateNetwork(Starts(process), 3, False)
    network.ask([SIZE])
    assert process.asked.wait(DEADLINE_S)
    network.close()
    until_done(network)
    network.close()
    network.ask([SIZE])
    assert network._getting_ready is None and process.closed and caplog.records == []
