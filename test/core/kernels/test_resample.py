import numpy as np
import torch

from vidseg_core.kernels.resample import on_grid, resize, resize_bytes


def test_gradients_flow_through_resizing():
    x = torch.randn(1, 2, 4, 5, requires_grad=True)
    (resize(x, (8, 10)).sum() + on_grid(x, (8, 10), (40, 50)).sum()).backward()
    assert x.grad is not None and abs(float(x.grad.sum()) - 2 * 2 * 80) < 1e-3
    with torch.no_grad():
        assert not resize(x, (8, 10)).requires_grad


def test_arrays_give_arrays_and_their_own_size_nothing_new():
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4)
    assert resize(x, (3, 4)) is x and on_grid(x, (3, 4)) is x
    np.testing.assert_allclose(resize(x, (1, 7))[0, :, 0], [np.arange(7) / 2, 12 + np.arange(7) / 2], atol=1e-6)
    assert isinstance(on_grid(x, (2, 2), (6, 8)), np.ndarray)


def test_bytes_are_rounded_to_even():
    x = np.array([[[[0, 1, 4, 255]]]], dtype=np.uint8)
    expected = [[[[0, 0, 1, 2, 4, 130, 255]]]]
    for values in (x, torch.from_numpy(x)):
        got = resize_bytes(values, (1, 7))
        assert type(got) is type(values) and got.dtype == values.dtype
        np.testing.assert_array_equal(np.asarray(got), expected)
