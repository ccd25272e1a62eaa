import os
import sys
import threading
from types import ModuleType

import numpy as np
import pytest
import torch

from vidseg_core import threads
from vidseg_core.threads import BANDS_EACH, Pool, available_threads, cpu_quota, over_rows, set_num_threads, worth

needs_two = pytest.mark.skipif(available_threads() < 2, reason="needs two processors")


def affinity():
    return os.sched_getaffinity(0)


def two_threads():
    """A budget of two, and a helper that is through with what it was given before: else it may be given no more."""
    set_num_threads(2)
    while (given := threads._pool.submit(affinity)) is None:
        os.sched_yield()
    given.result(60)


@pytest.fixture
def restored():
    yield
    set_num_threads()


@pytest.fixture
def pool():
    one = Pool(1)
    yield one
    one.close()


@pytest.mark.parametrize("num_threads", [1, 2, 3, 5])
def test_bands_make_up_all_rows(restored, num_threads):
    assert set_num_threads(num_threads) == num_threads
    for rows in (1, 2, 7, 100):
        seen, names = np.zeros(rows, dtype=int), []

        def kernel(begin, end, seen, names=names):
            seen[begin:end] += 1
            names.append(threading.current_thread().name)

        over_rows(kernel, rows, seen)
        assert (seen == 1).all()
        assert len(names) == min(num_threads * BANDS_EACH, rows) if num_threads > 1 else 1
        assert all(name.startswith("vidseg-rows") or name == "MainThread" for name in names)


@pytest.mark.parametrize(
    ("work_us", "threads"), [(0.0, 1), (199.0, 1), (200.0, 2), (350.0, 3), (1e9, 4), (float("inf"), 4)]
)
def test_a_thread_has_to_be_worth_it(restored, work_us, threads):
    set_num_threads(4)
    calls = []
    over_rows(lambda begin, end: calls.append((begin, end)), 100, work_us=work_us)
    assert worth(work_us) == threads and sum(end - begin for begin, end in calls) == 100
    assert len(calls) == (1 if threads == 1 else threads * BANDS_EACH)


def test_the_budget_is_torch_s_too(restored):
    assert set_num_threads(1) == 1 and torch.get_num_threads() == 1
    assert set_num_threads(0) == available_threads() == torch.get_num_threads()


def test_a_torch_that_another_thread_is_loading_is_left_to_that(restored, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch", ModuleType("torch"))  # it has no attributes yet
        assert set_num_threads(1) == 1
    threads.tell_torch()
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize(
    ("given", "budget"),
    [("1", 1), ("2", 2), (" 2 ", 2), ("2,1", 2), ("64", 3), ("0", 3), ("-1", 3), ("many", 3), ("", 3), (None, 3)],
)
def test_the_environment_gives_a_budget(given, budget, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 2})
    monkeypatch.setattr(threads, "cpu_quota", lambda: None)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if given is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", given)
    assert available_threads() == budget


def test_zero_takes_the_budget_of_the_environment(restored, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert set_num_threads(0) == 1 == torch.get_num_threads()
    assert set_num_threads(2) == 2  # whoever names a number has it
    monkeypatch.delenv("OMP_NUM_THREADS")


@pytest.mark.parametrize(("quota", "budget"), [(None, 8), (16.0, 8), (2.0, 2), (2.5, 2), (0.5, 1)])
def test_a_quota_is_a_budget(quota, budget, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "cpu_quota", lambda: quota)
    assert available_threads() == budget


@pytest.mark.parametrize(
    ("membership", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/\n", {"cpu.max": "nonsense"}, None),
        ("0::/user/job\n", {"user/cpu.max": "200000 100000", "user/job/cpu.max": "max 100000"}, 2.0),
        ("0::/user/job\n", {"user/cpu.max": "400000 100000", "user/job/cpu.max": "50000 50000"}, 1.0),
        ("0::/docker/4711\n", {"cpu.max": "100000 100000"}, 1.0),  # the host's path, in a container
        (
            "4:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            3.0,
        ),
        ("4:cpu,cpuacct:/job\n", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3.0),
        ("4:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("5:cpuset:/\n4:memory:/\n", {"cpuset/cpu.cfs_quota_us": "1", "cpuset/cpu.cfs_period_us": "1"}, None),
        (
            "4:cpu,cpuacct:/job\n0::/job\n",
            {"cpu/job/cpu.cfs_quota_us": "100000", "cpu/job/cpu.cfs_period_us": "50000", "unified/cpu.max": "max 1"},
            2.0,
        ),
    ],
)
def test_quotas_of_control_groups(membership, files, quota, tmp_path):
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mount" / name).write_text(text)
    assert cpu_quota(tmp_path / "membership", tmp_path / "mount") == quota


def test_a_system_without_control_groups_has_no_quota(tmp_path):
    assert cpu_quota(tmp_path / "absent", tmp_path) is None


def test_what_a_kernel_raises_in_a_thread(restored):
    set_num_threads(2)

    def kernel(begin, end):
        if begin:
            raise ValueError("below")

    with pytest.raises(ValueError, match="below"):
        over_rows(kernel, 2)


def test_a_negative_budget():
    with pytest.raises(ValueError, match="num_threads: expected 0 .* or more, got -1"):
        set_num_threads(-1)


@needs_two
def test_helpers_run_where_nobody_waits_for_them(pool):
    allowed = os.sched_getaffinity(0)
    for processor in sorted(allowed):
        pool.keep_off(processor)
        assert pool.submit(affinity).result() == allowed - {processor}
    assert os.sched_getaffinity(0) == allowed  # ours are not touched


@needs_two
def test_helpers_that_come_later_do_so_too():
    pool = Pool(2)
    processor = min(os.sched_getaffinity(0))
    pool.keep_off(processor)
    both = threading.Barrier(2)

    def look():
        both.wait(60)  # so there are two
        return os.sched_getaffinity(0)

    for result in [pool.submit(look) for _ in range(2)]:
        assert processor not in result.result()
    pool.close()


@needs_two
def test_bands_are_computed_on_different_processors(restored):
    two_threads()
    both, where = threading.Barrier(2), {}

    def kernel(begin, end):
        both.wait(60)  # so each thread takes one
        where[threading.current_thread().name] = os.sched_getaffinity(0)

    over_rows(kernel, 2)
    helper = next(name for name in where if name != "MainThread")
    assert len(where["MainThread"] - where[helper]) == 1


def test_a_helper_that_comes_late_is_not_waited_for(restored):
    two_threads()
    late, names = threading.Event(), []
    threads._pool.submit(lambda: late.wait(60))
    over_rows(lambda begin, end: names.append(threading.current_thread().name), 9)
    assert names == ["MainThread"] * 2 * BANDS_EACH
    late.set()


def test_bands_under_way_are_waited_for_when_another_fails(restored):
    two_threads()
    both, failing, done = threading.Barrier(2), threading.Event(), []

    def kernel(begin, end):
        both.wait(60)
        if threading.current_thread() is threading.main_thread():
            failing.set()
            raise ValueError("ours")
        assert failing.wait(60)
        done.append(sum(range(100_000)))  # long enough for the other one to be through

    with pytest.raises(ValueError, match="ours"):
        over_rows(kernel, 2)
    assert len(done) == 1


@needs_two
def test_helpers_stay_where_they_were_put_since(pool):
    """Not on a processor that was taken from all threads in the meantime."""
    allowed = os.sched_getaffinity(0)
    one, other, *_ = sorted(allowed)
    pool.keep_off(one)
    helper = pool.submit(threading.get_native_id).result()
    try:
        for thread in (0, helper):
            os.sched_setaffinity(thread, {other})
        pool.keep_off(other)
        assert pool.submit(affinity).result() == {other}
    finally:
        os.sched_setaffinity(0, allowed)


def test_where_it_is_forbidden_helpers_run_anywhere(restored, monkeypatch, caplog):
    def forbidden(thread, processors):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    monkeypatch.setattr(threads, "_pool", None)
    pool = Pool(1)
    pool.submit(affinity).result()
    for processor in (0, 1, 0):
        pool.keep_off(processor)
    assert pool.submit(affinity).result() == os.sched_getaffinity(0)
    if available_threads() > 1:
        [record] = caplog.records
        assert record.getMessage() == "helping threads run where the system puts them: Operation not permitted"
    pool.close()


def test_a_helper_that_never_comes_is_not_given_ever_more(pool):
    go = threading.Event()
    pool.submit(lambda: go.wait(60))
    given = [pool.submit(affinity) for _ in range(100)]
    assert len([one for one in given if one is not None]) <= 2
    go.set()
    given[0].result()
    assert pool.submit(affinity).result()


def test_where_there_is_one_processor_helpers_share_it():
    allowed = os.sched_getaffinity(0)
    only = min(allowed)
    os.sched_setaffinity(0, {only})
    try:
        pool = Pool(1)
        pool.keep_off(only)
        assert pool.submit(affinity).result() == {only}
        pool.close()
    finally:
        os.sched_setaffinity(0, allowed)
