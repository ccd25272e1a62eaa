import numpy as np
import pytest
import torch

from vidseg_core.kernels.warp import compose, warp


@pytest.fixture
def values():
    return torch.randn(1, 3, 9, 12, generator=torch.Generator().manual_seed(0))


def constant_flow(u, v):
    return torch.tensor([float(u), float(v)]).view(1, 2, 1, 1).expand(1, 2, 9, 12)


def test_zero_flow_is_the_identity(values):
    torch.testing.assert_close(warp(values, constant_flow(0, 0)), values, atol=1e-5, rtol=0)


def test_zero_flow_is_not_the_identity_the_published_way(values):
    assert (warp(values, constant_flow(0, 0), align_corners=False) - values).abs().max() > 0.1


def test_flow_points_to_the_previous_frame(values):
    warped = warp(values, constant_flow(2, 1))
    torch.testing.assert_close(warped[:, :, :8, :10], values[:, :, 1:, 2:], atol=1e-5, rtol=0)
    assert warped[:, :, 8].abs().max() < 1e-5 and warped[:, :, :, 10:].abs().max() < 1e-5


def test_half_pixels_are_averages(values):
    warped = warp(values, constant_flow(0.5, 0))
    torch.testing.assert_close(warped[..., :-1], (values[..., :-1] + values[..., 1:]) / 2, atol=1e-5, rtol=0)


def test_border_repeats_the_last_pixel(values):
    warped = warp(values, constant_flow(5, 0), padding="border")
    torch.testing.assert_close(warped[..., 7:], values[..., -1:].expand(-1, -1, -1, 5), atol=1e-5, rtol=0)


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("channels", [1, 2, 19])
def test_the_kernel_moves_as_grid_sample_does(align_corners, padding, channels):
    """A flow that asks for a gradient is followed by `grid_sample`."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1, channels, 23, 31, generator=generator)
    flow = 8 * torch.randn(1, 2, 23, 31, generator=generator)
    flow[0, :, :2] *= 1e6
    kernel = warp(values, flow, align_corners, padding)
    sampled = warp(values, flow.clone().requires_grad_(), align_corners, padding)
    assert sampled.requires_grad and not kernel.requires_grad
    torch.testing.assert_close(kernel, sampled.detach(), atol=2e-4, rtol=0)


def test_gradients_flow(values):
    flow = constant_flow(0.3, 0.2).clone().requires_grad_()
    warp(values.requires_grad_(), flow).sum().backward()
    assert values.grad is not None and flow.grad is not None


def test_bad_arguments(values):
    with pytest.raises(ValueError, match="padding: expected one of"):
        warp(values, constant_flow(0, 0), padding="mirror")
    with pytest.raises(ValueError, match="B x 2 x h x w"):
        warp(values, torch.zeros(1, 2, 9, 11))


@pytest.mark.parametrize("channels", [2, 11])
@pytest.mark.parametrize("side", [4, 128])
def test_the_last_place_before_the_outside(channels, side):
    """Where one more would, as a float32, be the next pixel."""
    values = torch.rand(1, channels, side, side)
    flow = torch.zeros(1, 2, side, side)
    last = np.nextafter(np.float32(side), np.float32(0)) - np.float32(side - 1)
    flow[0, :, -1, -1] = flow[0, 0, 1, -1] = flow[0, 1, -1, 1] = float(last)
    moved = warp(values, flow, padding="zeros")
    for y, x in ((-1, -1), (1, -1), (-1, 1)):
        assert moved[0, :, y, x].abs().max() < 1e-4
    flow[0, :, -1, -1] = flow[0, 0, 1, -1] = flow[0, 1, -1, 1] = 0
    assert torch.equal(moved[..., :-1, :-1], warp(values, flow)[..., :-1, :-1])


def test_composed_motion_is_what_both_lead_to():
    generator = torch.Generator().manual_seed(0)
    motion, flow = (torch.randn(1, 2, 9, 13, generator=generator) * 3 for _ in range(2))
    torch.testing.assert_close(compose(motion, flow), flow + warp(motion, flow, padding="border"), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(compose(motion.numpy(), flow.numpy()), compose(motion, flow).numpy())
    batch = compose(motion.expand(2, -1, -1, -1), flow.expand(2, -1, -1, -1))
    torch.testing.assert_close(batch[1:], compose(motion, flow), rtol=1e-5, atol=1e-5)
    flow[0, 0, 4, 4] = torch.nan
    rest = torch.ones(9, 13, dtype=torch.bool)
    rest[4, 4] = False
    assert compose(motion, flow)[0, :, rest].isfinite().all()


def test_arrays_give_arrays(values):
    """Of any batch, in the order of channels last."""
    flow = torch.randn(2, 2, 9, 12, generator=torch.Generator().manual_seed(1))
    both = torch.cat((values, -values))
    moved = warp(both.numpy(), flow.numpy(), padding="border")
    assert isinstance(moved, np.ndarray) and moved.transpose(0, 2, 3, 1).flags.c_contiguous
    np.testing.assert_array_equal(moved[:1], warp(values, flow[:1], padding="border").numpy())
    np.testing.assert_allclose(moved, warp(both, flow, padding="border").numpy(), atol=2e-5)
    chained = compose(flow.numpy(), flow.numpy())
    assert isinstance(chained, np.ndarray)
    np.testing.assert_allclose(chained, compose(flow, flow).numpy(), atol=2e-5)
