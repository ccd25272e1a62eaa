from vidseg_core.evaluation.bench.propagated import Case
from vidseg_core.evaluation.bench.threads import bench_threads, table
from vidseg_core.threads import num_threads, regardless, set_num_threads, worth


def test_kernels_are_timed_on_one_thread_on_all_and_on_those_that_are_worth_it():
    report = bench_threads(2, [Case((240, 320), 8)], rounds=1)
    assert num_threads() == 2 and worth(1.0) == 1
    kernels = [row["kernel"] for row in report["rows"]]
    assert len(set(kernels)) == len(kernels) == 10 and {"flow", "labels", "overlay", "update"} <= set(kernels)
    assert all(row["case"] == "320 x 240, logits at 1/8" for row in report["rows"])
    assert all(row[way] > 0 for row in report["rows"] for way in ("one", "all", "worth"))
    assert "motions chained" in table(report) and "2 threads" in table(report)


def test_all_threads_regardless():
    set_num_threads(3)
    try:
        with regardless():
            assert worth(0.0) == 3
            with regardless(False):
                assert worth(0.0) == 1
            assert worth(0.0) == 3
        assert worth(0.0) == 1
    finally:
        set_num_threads()
