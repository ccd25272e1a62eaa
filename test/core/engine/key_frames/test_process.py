import gc
import logging
import os
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
import pytest
import torch

from vidseg_core.backends.blob_cache import identity_of
from vidseg_core.backends.choose import Runtime
from vidseg_core.classes import load_classes
from vidseg_core.engine import build
from vidseg_core.engine.build import build_engine
from vidseg_core.engine.config import DEFAULT_WEIGHTS, EngineConfig
from vidseg_core.engine.key_frames import process as process_module
from vidseg_core.engine.key_frames import turns, worker
from vidseg_core.engine.key_frames.process import SegmenterProcess
from vidseg_core.engine.key_frames.shared_memory import Shared
from vidseg_core.engine.key_frames.turns import STILL_S, STILL_SHARE, Turns
from vidseg_core.engine.key_frames.worker import Task
from vidseg_core.engine.segmenter import NetworkSegmenter, TruthSegmenter, load_segmenter, ranges_of, ready
from vidseg_core.errors import ConfigError
from vidseg_core.frame import Frame
from vidseg_core.models.open import open_model
from vidseg_core.models.registry import find_weights

WAIT_S = 60
CLASSES = 11
SMALL = 0.5


def picture(height=64, width=96, seed=0):
    return Frame(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8), 0)


def start(path=None, runtime="eager", num_threads=1):
    weights = find_weights(DEFAULT_WEIGHTS)
    task = Task(path or weights, SMALL, runtime, num_threads)
    return SegmenterProcess(task, CLASSES, open_model(weights).card.input)


def has_ended(pid):
    """Whether the process is gone, or is within the time we wait."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], WAIT_S)[0])
    finally:
        os.close(handle)


def is_stopped(pid):
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0] == "T"


@pytest.fixture(scope="module")
def process():
    with closing(start()) as one:
        yield one


class Clock:
    """What `Turns` does, on a clock which only we move."""

    def __init__(self, monkeypatch):
        self.now_s = 0.0
        self.done = []
        monkeypatch.setattr(turns.time, "monotonic", lambda: self.now_s)
        self.turns = Turns(lambda: self.done.append("stop"), lambda: self.done.append("go"))


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def test_a_frame_has_the_segmentation_stand_still(clock):
    with clock.turns.frame():
        assert clock.done == []
    with clock.turns.segmentation():
        assert clock.done == []
        with clock.turns.frame():
            assert clock.done == ["stop"]
        assert clock.done == ["stop", "go"]
    with clock.turns.frame(), clock.turns.segmentation():
        assert clock.done == ["stop", "go", "stop"]
    assert clock.done == ["stop", "go"] * 2


def test_it_goes_on_when_the_last_of_several_frames_is_done(clock):
    with clock.turns.segmentation():
        with clock.turns.frame():
            with clock.turns.frame():
                pass
            assert clock.done == ["stop"]
        assert clock.done == ["stop", "go"]


def test_it_does_not_stand_still_while_a_stream_waits_for_it(clock):
    with clock.turns.segmentation(), clock.turns.frame():
        with clock.turns.waiting():
            assert clock.done == ["stop", "go"]
            with clock.turns.frame():
                assert clock.done == ["stop", "go"]
        assert clock.done == ["stop", "go", "stop"]


def test_frames_without_a_pause_leave_it_a_share_of_the_time(clock):
    with clock.turns.segmentation():
        for _ in range(100):
            with clock.turns.frame():
                clock.now_s += 0.01
    assert clock.done.count("stop") == pytest.approx(100 * STILL_SHARE + STILL_S / 0.01, abs=2)
    with clock.turns.segmentation(), clock.turns.frame():  # what was with another one does not count
        assert clock.done[-1] == "stop"


def test_frames_that_overlap_leave_it_the_same_share(clock):
    """Those of two streams in two threads: there is always one."""
    with clock.turns.segmentation(), ExitStack() as stack:
        frame = stack.enter_context(ExitStack())
        frame.enter_context(clock.turns.frame())
        for _ in range(200):
            following = stack.enter_context(ExitStack())
            following.enter_context(clock.turns.frame())
            frame.close()
            frame = following
            clock.now_s += 0.01
        assert clock.turns.look() == pytest.approx(2 * STILL_SHARE + STILL_S, abs=0.02)
    assert clock.done.count("go") == clock.done.count("stop") > 10


def test_a_frame_that_takes_long_leaves_it_the_same_share_if_somebody_looks(clock):
    with clock.turns.segmentation(), clock.turns.frame():
        for _ in range(100):
            clock.now_s += 0.1
            clock.turns.look()
        assert clock.turns.look() == pytest.approx(10 * STILL_SHARE, abs=0.2)


def test_what_a_frame_raises_does_not_leave_it_standing(clock):
    with clock.turns.segmentation():
        with pytest.raises(RuntimeError), clock.turns.frame():
            raise RuntimeError
        assert clock.done == ["stop", "go"]


def test_quiet_is_when_no_stream_is_at_a_frame():
    turns = Turns(lambda: None, lambda: None)
    turns.quiet(0.0)
    returned = threading.Event()
    thread = threading.Thread(target=lambda: (turns.quiet(WAIT_S), returned.set()))
    with turns.frame():
        thread.start()
        assert not returned.wait(0.05)
    assert returned.wait(WAIT_S)
    with turns.frame():
        turns.quiet(0.01)  # not for longer
        with turns.waiting():
            turns.quiet(WAIT_S)
    thread.join()


@pytest.mark.parametrize("size", [(64, 96), (128, 160), (80, 64)])
def test_scores_are_those_of_the_network(process, size):
    """Of larger pictures and of smaller ones than before, too."""
    frame = picture(*size)
    cpu = torch.device("cpu")
    model = open_model(DEFAULT_WEIGHTS)
    network = ready(model.networks["segmenter"], cpu)
    with torch.inference_mode():
        expected = NetworkSegmenter(network, SMALL, cpu, input=model.card.input)(frame).numpy()
    scores = process(frame)
    assert scores.shape == expected.shape and scores.dtype == np.float32
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    assert process.runtime == "eager"
    other = process(picture(*size, seed=1))
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)  # nobody else writes to them
    assert not np.array_equal(scores, other)


def test_a_network_that_was_compiled_before_is_executed_without_pytorch(monkeypatch, tmp_path, caplog):
    """A start that finds everything compiled would wait a second for it, and need hundreds of megabytes more."""
    pytest.importorskip("openvino")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cpu, frame, model = torch.device("cpu"), picture(), open_model(DEFAULT_WEIGHTS)
    here = load_segmenter(model, SMALL, cpu, Runtime("openvino", cpu, 1))
    with torch.inference_mode():
        expected = here(frame).numpy()
    identity, ranges = identity_of(model.networks["segmenter"]), ranges_of(model.card)
    task = Task(find_weights(DEFAULT_WEIGHTS), SMALL, "openvino", 1, "idle", identity, ranges)
    with caplog.at_level(logging.INFO), closing(SegmenterProcess(task, CLASSES, model.card.input)) as process:
        process.prepare(frame.size)
        torch.testing.assert_close(process(frame), expected)
        assert "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text()
        assert process.runtime == here.runtime and len(process.costs) == 1
        assert f"runtime of the segmenter: {here.runtime}, as asked for" in caplog.text
        assert process(picture(128, 160)).shape[1] == CLASSES  # another size is compiled, and then it is loaded
        assert "libtorch" in Path(f"/proc/{process.pid}/maps").read_text()
    networks, asked, wanted = worker._Networks(task), *(Shared(os.memfd_create(name)) for name in ("asked", "wanted"))
    shapes = [(1, *here.input_size(one.size), 3) for one in (frame, picture(128, 160))]
    for shape in shapes:
        networks.execute(shape, asked, wanted)
    assert set(networks._ready) == set(shapes)
    monkeypatch.setattr(worker, "UNUSED_S", 0.0)
    networks.execute(shapes[0], asked, wanted)
    assert set(networks._ready) <= {shapes[0]}, "of another size nothing has come for so long"
    assert networks.execute(shapes[1], asked, wanted).error is None


def test_networks_of_sizes_that_were_only_tried_are_let_go_of():
    """A governor that begins tries one size after the other, and each network takes 45 MB."""
    networks = worker._Networks(Task(find_weights(DEFAULT_WEIGHTS), SMALL, "openvino", 1))
    one, other, tried, next_one = shapes = [(1, rows, rows, 3) for rows in (64, 96, 128, 160)]
    networks._ready = dict.fromkeys(shapes, lambda _: [])
    networks._read_s = dict.fromkeys(shapes, 100.0)
    assert networks.prepare(next_one, None).is_ready and set(networks._ready) == set(shapes)
    assert networks.prepare(next_one, frozenset({one, other})).is_ready
    assert set(networks._ready) == set(networks._read_s) == {one, other, next_one}
    networks._ready[tried] = lambda _: []  # compiled here, which takes long
    assert networks.prepare(next_one, frozenset({next_one})).is_ready
    assert set(networks._ready) == {next_one, tried}


def test_the_process_is_told_what_pictures_come_in_when_it_is_asked_ahead(monkeypatch):
    with closing(start()) as process:
        asked, ask = [], process._ask
        monkeypatch.setattr(process, "_ask", lambda request, *given: asked.append(request) or ask(request, *given))
        process.prepare((64, 96))
        assert asked.pop().used is None, "that others are not used yet is no reason to let go of them"
        for size in ((64, 96), (256, 384)):
            process(picture(*size))
        process.share = 0.5
        process(picture(256, 384))
        first, second, ahead, _ = asked
        assert not first.is_ahead and not second.is_ahead and ahead.is_ahead
        assert ahead.used == {first.shape, second.shape} and ahead.shape not in ahead.used


def test_another_size_is_compiled_beside_frames_of_the_last_one():
    with closing(start()) as process:
        whole = process(picture(128, 192))
        process.share = 0.5
        shares = set()
        for _ in range(int(WAIT_S / 0.01)):
            shares.add(process(picture(128, 192)).shape[2] / whole.shape[2])
            if 0.5 in shares:
                break
        assert 0.5 in shares and shares <= {0.5, 1.0}
        assert process.costs[-1][1] in (0.5, 1.0)


def test_padded_rows(process):
    frame = picture()
    padded = np.zeros((64, 100, 3), dtype=np.uint8)
    padded[:, :96] = frame.image
    np.testing.assert_array_equal(process(Frame(padded[:, :96], 0)), process(frame))


def test_the_process_stands_still_during_a_frame(process):
    large = picture(720, 960)
    process(picture())
    with ThreadPoolExecutor(1) as beside_us:
        with process.turns.frame():
            result = beside_us.submit(process, large)
            _await(lambda: is_stopped(process.pid))
            assert not result.done()
        assert result.result(WAIT_S).shape[1] == CLASSES
    assert not is_stopped(process.pid)


def _await(condition):
    """States of processes raise no event: look until it is so."""
    done = threading.Event()
    for _ in range(int(WAIT_S / 0.001)):
        if condition():
            return
        done.wait(0.001)
    pytest.fail("it never was")


def test_an_interrupt_from_the_terminal_is_not_for_the_process(process):
    process(picture())
    assert os.getpgid(process.pid) != os.getpgid(0) and os.getsid(process.pid) == os.getsid(0)
    nice = os.getpriority(os.PRIO_PROCESS, process.pid)
    assert nice == os.getpriority(os.PRIO_PROCESS, 0) + worker.NICENESS
    assert os.sched_getscheduler(process.pid) == os.SCHED_IDLE


def test_a_process_that_is_killed_is_told_and_replaced(caplog):
    with closing(start()) as process:
        expected, first = process(picture()), process.pid
        large = picture(720, 960)
        with ThreadPoolExecutor(1) as beside_us:
            with process.turns.frame():
                result = beside_us.submit(process, large)
                _await(lambda: is_stopped(process.pid))
                os.kill(first, signal.SIGKILL)
                with pytest.raises(RuntimeError, match="the segmenter's process was ended by SIGKILL"):
                    result.result(WAIT_S)
        torch.testing.assert_close(process(picture()), expected)
        assert process.pid != first
        os.kill(process.pid, signal.SIGKILL)
        process._process.wait(WAIT_S)
        caplog.clear()
        torch.testing.assert_close(process(picture()), expected)  # between two frames: nobody has lost anything
        assert [record.getMessage() for record in caplog.records] == [
            "the segmenter's process was ended by SIGKILL; another one is started"
        ]


def test_what_the_network_raises_there(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"not weights")
    with closing(start(path)) as process:
        for _ in range(2):
            with pytest.raises(RuntimeError, match=f"the segmenter failed:[\\s\\S]*{path}"):
                process(picture())


@pytest.mark.long
def test_where_every_processor_is_busy_it_takes_its_share(monkeypatch, caplog):
    monkeypatch.setattr(process_module, "STARVED_S", 0.5)
    processor = min(os.sched_getaffinity(0))
    busy = f"import os; os.sched_setaffinity(0, {{{processor}}}); print(flush=True)\nwhile True: pass"
    with closing(start()) as process:
        expected, first = process(picture()), process.pid
        os.sched_setaffinity(first, {processor})
        with subprocess.Popen([sys.executable, "-c", busy], stdout=subprocess.PIPE) as other:
            other.stdout.readline()
            caplog.clear()
            large = process(picture(720, 960))
            other.kill()
        assert has_ended(first) and large.shape[1] == CLASSES
        assert os.sched_getscheduler(process.pid) == os.SCHED_BATCH
        [message] = [record.getMessage() for record in caplog.records]
        assert message.startswith("every processor is busy: the segmenter, which lets others go first, had one for 0.0")
        torch.testing.assert_close(process(picture()), expected)


def test_standing_still_is_not_being_starved(process, monkeypatch, caplog):
    for module, name, value in (
        (process_module, "STARVED_S", 0.2),
        (process_module, "LOOK_S", 0.05),
        (turns, "STILL_S", WAIT_S),
    ):
        monkeypatch.setattr(module, name, value)
    process(picture())
    first, looks = process.pid, threading.Semaphore(0)
    look = process.turns.look
    monkeypatch.setattr(process.turns, "look", lambda: (looks.release(), look())[1])
    with ThreadPoolExecutor(1) as beside_us:
        with process.turns.frame():
            result = beside_us.submit(process, picture(720, 960))
            for _ in range(8):  # twice as long as would be too long
                assert looks.acquire(timeout=WAIT_S)
        assert result.result(WAIT_S).shape[1] == CLASSES
    assert process.pid == first and not caplog.records


def test_an_interrupted_call_does_not_leave_its_answer_to_the_next_one(monkeypatch):
    with closing(start()) as process:
        expected = process(picture(seed=1))

        def interrupted(_):
            raise KeyboardInterrupt

        monkeypatch.setattr(process._connection, "poll", interrupted)
        with pytest.raises(KeyboardInterrupt):
            process(picture(seed=2))
        process._process.wait(WAIT_S)
        torch.testing.assert_close(process(picture(seed=1)), expected)


def test_another_one_is_found_from_wherever_we_are_then(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", ["", Path("odd"), *sys.path])
    with build_engine(EngineConfig(key_frames="async", input_scale=SMALL, runtime="eager", num_threads=1)) as engine:
        process = engine.networks.segmenter
        expected = process(picture())
        os.kill(process.pid, signal.SIGKILL)
        process._process.wait(WAIT_S)
        monkeypatch.chdir(tmp_path)
        torch.testing.assert_close(process(picture()), expected)


def test_a_process_that_cannot_be_started(monkeypatch):
    monkeypatch.setattr(sys, "executable", None)
    with pytest.raises(TypeError):
        start()
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(FileNotFoundError, match="/nowhere/python"):
        start()


def test_one_that_was_closed_meanwhile_is_not_started(process):
    with closing(start()) as other:
        other.close()
        with pytest.raises(RuntimeError, match="is closed"):
            other._start()
        assert has_ended(other.pid)


def test_an_engine_that_cannot_be_made_leaves_no_process(monkeypatch):
    made = []

    class Noted(SegmenterProcess):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(build, "SegmenterProcess", Noted)
    with pytest.raises(ConfigError, match="ego_mask"):
        build_engine(EngineConfig(key_frames="async", ego_mask="/nowhere.png"))
    assert has_ended(made[0].pid)


def test_closing_ends_it_at_once():
    process = start()
    with ThreadPoolExecutor(1) as beside_us, process.turns.frame():
        result = beside_us.submit(process, picture(720, 960))
        _await(lambda: is_stopped(process.pid))
        process.close()
        with pytest.raises(RuntimeError, match="ended by SIGKILL"):
            result.result(WAIT_S)
    process.close()
    assert has_ended(process.pid)
    with pytest.raises(RuntimeError, match="is closed"):
        process(picture())


def test_it_ends_with_the_object():
    process = start()
    pid = process.pid
    del process
    gc.collect()
    assert has_ended(pid)


def test_it_ends_with_its_owner_even_while_it_stands_still():
    """And the owner need not have a say in that."""
    program = f"""if True:
        import sys, threading
        sys.path[:] = {[str(Path(__file__).parent), *sys.path]!r}
        from test_process import _await, is_stopped, picture, start
        process = start()
        process(picture())
        threading.Thread(target=lambda: process(picture(720, 960)), daemon=True).start()
        with process.turns.frame():
            _await(lambda: is_stopped(process.pid))
            print(process.pid, flush=True)
            sys.stdin.read()
    """
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        pid = int(owner.stdout.readline())
        assert is_stopped(pid)
        owner.kill()
    assert has_ended(pid)


def test_what_it_logs_is_logged_here(caplog):
    with caplog.at_level(logging.INFO), closing(start(runtime="auto")) as process:
        process(picture())
    assert "runtime of the segmenter: " in caplog.text and process.runtime in caplog.text


def test_an_engine_with_asynchronous_key_frames_has_a_process():
    config = EngineConfig(key_frames="async", interval=1, input_scale=SMALL, runtime="eager", num_threads=1)
    frame = picture()
    with build_engine(config) as engine:
        segmenter = engine.networks.segmenter
        assert isinstance(segmenter, SegmenterProcess) and engine.turns is segmenter.turns
        first = engine.stream().step(frame)
        assert engine.runtimes()["segmenter"] == "eager" and engine.describe()["input_scale"] == SMALL
        assert first.is_key and first.age == 0 and torch.get_num_threads() == 1
    assert has_ended(segmenter.pid)
    with build_engine(EngineConfig(interval=1, input_scale=SMALL, runtime="eager", num_threads=1)) as engine:
        assert engine.turns is None
        np.testing.assert_array_equal(engine.stream().step(frame).labels, first.labels)


def test_an_engine_that_hangs_is_ended():
    config = EngineConfig(key_frames="async", interval=0, input_scale=SMALL, runtime="eager", num_threads=1)
    with build_engine(config) as engine:
        stream = engine.stream()
        stream.step(picture())
        pid = engine.networks.segmenter.pid
        os.kill(pid, signal.SIGSTOP)
        stream.step(Frame(picture(seed=1).image, 33_000_000))
        assert engine.close(timeout_s=0.2) and has_ended(pid)


def test_another_segmenter_stays_in_this_process():
    classes = load_classes("camvid")
    with build_engine(EngineConfig(key_frames="async"), TruthSegmenter(len(classes)), classes) as engine:
        assert engine.turns is None


def test_shared_memory_grows():
    one = Shared(os.memfd_create("test"))
    other = Shared(os.dup(one.file))
    one.arrays(((2, 3), np.uint8))[0][:] = 7
    assert other.arrays(((6,), np.uint8))[0].tolist() == [7] * 6
    layout = ((3,), np.uint8), ((5000, 5), np.float32)
    first, second = one.arrays(*layout)
    first[:], second[-1] = 1, 3
    assert [values[-1].tolist() for values in other.arrays(*layout)] == [1, [3.0] * 5]
