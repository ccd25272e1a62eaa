import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vidseg_core.arrays import as_array
from vidseg_core.kernels.cpu.decode import MIXED
from vidseg_core.kernels.decode import decode, decode_warped, one_class
from vidseg_core.threads import set_num_threads


def upsampled(logits, size):
    return F.interpolate(logits, size, mode="bilinear", align_corners=True)[0]


def picture_like(classes, grid, seed=0):
    """Logits with regions, borders and noise, as a network gives them."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(1, classes, max(2, grid[0] // 8), max(2, grid[1] // 8), generator=generator)
    noise = torch.randn(1, classes, *grid, generator=generator)
    return 3 * F.interpolate(coarse, grid, mode="bicubic") + 0.1 * noise


def assert_same_but_for_ties(logits, size):
    labels = decode(logits, size)
    full = upsampled(logits, size)
    expected = full.argmax(0).numpy()
    differ = labels != expected
    if differ.any():
        ours = full.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
        assert torch.equal(ours[differ], full.amax(0)[differ])
    assert labels.shape == size and labels.dtype == np.uint8


@pytest.mark.parametrize("threads", [1, 2])
def test_full_size(threads):
    set_num_threads(threads)
    logits = picture_like(19, (128, 256))
    for layout in (torch.contiguous_format, torch.channels_last):
        assert_same_but_for_ties(logits.to(memory_format=layout), (1024, 2048))


@pytest.mark.parametrize("classes", [1, 2, 11, 255])
@pytest.mark.parametrize(
    ("grid", "size"),
    [
        ((45, 60), (360, 480)),
        ((33, 17), (65, 64)),
        ((60, 90), (31, 77)),
        ((8, 8), (64, 64)),
        ((1, 1), (64, 64)),
        ((2, 3), (2, 3)),
    ],
)
def test_any_size_and_number_of_classes(classes, grid, size):
    generator = torch.Generator().manual_seed(classes)
    assert_same_but_for_ties(torch.randn(1, classes, *grid, generator=generator), size)


def test_a_class_that_leads_at_no_corner_can_win_between_them():
    logits = torch.zeros(1, 3, 2, 2)
    logits[0, 0] = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    logits[0, 1] = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    logits[0, 2] = 0.75
    labels = decode(logits, (64, 64))
    assert set(np.unique(labels)) == {0, 1, 2}
    assert_same_but_for_ties(logits, (64, 64))


def test_ties_keep_a_class_that_ties():
    logits = torch.zeros(1, 4, 8, 8)
    logits[0, 1:3] = 1.0
    logits[0, 3, :4] = 1.0
    assert_same_but_for_ties(logits, (64, 71))


def test_result_is_owned():
    logits = picture_like(5, (16, 16))
    first = decode(logits, (128, 128))
    kept = first.copy()
    decode(-logits, (128, 128))
    np.testing.assert_array_equal(first, kept)


def test_arrays_are_read_as_tensors_are():
    """In any layout; and labels are the host's arrays, whatever logits are."""
    logits, flow = picture_like(11, (24, 32)), torch.full((1, 2, 24, 32), 1.5)
    expected, same = decode(logits, (96, 128)), one_class(logits)
    moved = decode_warped(logits, flow, same, (96, 128))
    for layout in (torch.contiguous_format, torch.channels_last):
        array, way = as_array(logits.to(memory_format=layout)), as_array(flow)
        np.testing.assert_array_equal(decode(array, (96, 128)), expected)
        np.testing.assert_array_equal(decode_warped(array, way, one_class(array), (96, 128)), moved)
        np.testing.assert_array_equal(one_class(array), same.numpy())
    assert isinstance(moved, np.ndarray) and 0.1 < (same == MIXED).float().mean() < 0.9


def test_bad_shape():
    with pytest.raises(ValueError, match=r"1 x C x h x w with C in 1\.\.255, got \(2, 3, 8, 8\)"):
        decode(torch.zeros(2, 3, 8, 8), (64, 64))
    with pytest.raises(ValueError, match="got "):
        decode(torch.zeros(1, 256, 8, 8), (64, 64))
