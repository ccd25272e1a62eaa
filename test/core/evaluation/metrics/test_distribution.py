import numpy as np

from vidseg_core.evaluation.metrics.distribution import distribution


def test_percentiles_by_name():
    values = np.arange(101) / 3
    assert distribution(values) == {"p50": 16.667, "p95": 31.667, "p99": 33.0, "max": 33.333}
    assert distribution(list(values), (95, 100), digits=1) == {"p95": 31.7, "max": 33.3}
    assert distribution([1.23456], (50,), digits=None) == {"p50": 1.23456}


def test_nothing_has_no_percentiles():
    assert distribution([]) == {"p50": None, "p95": None, "p99": None, "max": None}
    assert distribution(np.array([]), (50, 100)) == {"p50": None, "max": None}
