"""Every registered implementation of every operation computes what the reference in plain torch does.

Those for CUDA devices are compared on a card, or on the CPU in Triton's interpreter (`TRITON_INTERPRET=1`).
"""

import importlib.util
import os
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vidseg_core.arrays import as_array, as_tensor
from vidseg_core.kernels import (
    PADDINGS,
    change,
    decode,
    difference,
    flow,
    fuse,
    grey,
    look,
    paint,
    picture,
    points,
    queries,
    refine,
    resample,
    shares,
    stretch,
    transfer,
    update,
    vote,
    warp,
)
from vidseg_core.kernels.cpu.decode import MIXED
from vidseg_core.kernels.cpu.dis import PAD
from vidseg_core.kernels.dispatch import OPERATIONS, Operation, provide
from vidseg_core.overlay import Colours, overlay

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if torch.cuda.is_available() or (INTERPRETED and importlib.util.find_spec("triton")):
    assert provide("cuda")

SIZES = [(8, 8), (23, 37), (45, 60), (2, 3)]
THIN = [(1, 1), (1, 9), (9, 1)]
PROJECTION = np.array([[50.0, 0.5, 31.0, -4.0], [0.0, 52.0, 20.0, 2.0], [0.0, 0.0, 1.0, 0.0]])


def implementations(operation):
    return [pytest.param(kind, f, id=kind) for kind, f in operation.implementations.items()]


def covers(operation):
    return pytest.mark.parametrize(("kind", "implementation"), implementations(operation))


@pytest.fixture(autouse=True)
def device_is_there(request):
    kind = request.node.callspec.params.get("kind") if hasattr(request.node, "callspec") else None
    if kind == "cuda" and not torch.cuda.is_available() and not INTERPRETED:
        pytest.skip("no CUDA device")


def random(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def on(kind, x):
    if isinstance(x, list):
        return [on(kind, one) for one in x]
    return x.to("cpu" if INTERPRETED else kind) if isinstance(x, torch.Tensor) else x


def called(implementation, kind, *arguments):
    result = implementation(*(on(kind, x) for x in arguments))
    return result.cpu() if isinstance(result, torch.Tensor) else result


def pixels_on(kind, image):
    """The image where the implementation reads it."""
    return image if kind == "cpu" else on(kind, torch.from_numpy(np.ascontiguousarray(image)))


@covers(warp.WARP)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 2, 11, 19])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("align_corners", [True, False])
def test_warp(kind, implementation, size, channels, padding, align_corners):
    values, flow = random(1, channels, *size), random(1, 2, *size, seed=1, scale=3.0)
    # The reference's sampling grid is rounded once more; an error of a pixel's 1e-5 moves values by as much.
    expected = warp.WARP.reference(values.double(), flow.double(), align_corners, padding).float()
    got = called(implementation, kind, values, flow, align_corners, padding)
    torch.testing.assert_close(got, expected, atol=4e-5, rtol=0)


@covers(warp.COMPOSE)
@pytest.mark.parametrize("size", SIZES)
def test_compose(kind, implementation, size):
    motion, flow = (random(1, 2, *size, seed=seed, scale=3.0) for seed in (0, 1))
    expected = warp.COMPOSE.reference(motion.double(), flow.double()).float()
    torch.testing.assert_close(called(implementation, kind, motion, flow), expected, atol=4e-5, rtol=0)


@covers(decode.DECODE)
@pytest.mark.parametrize("grid", SIZES + THIN)
@pytest.mark.parametrize("size", [(64, 71), (5, 3), (1, 1)])
@pytest.mark.parametrize("classes", [1, 11, 255])
@pytest.mark.parametrize("half_pixel", [False, True])
def test_decode(kind, implementation, grid, size, classes, half_pixel):
    if kind == "cuda" and INTERPRETED and classes == 255 and grid not in ((8, 8), (1, 9)):
        pytest.skip("takes the interpreter long, and is the same loop over classes")
    logits = random(1, classes, *grid)
    labels = called(implementation, kind, logits, size, half_pixel)
    assert labels.shape == size and labels.dtype == np.uint8
    differ = labels != decode.DECODE.reference(logits, size, half_pixel)
    full = F.interpolate(logits, size, mode="bilinear", align_corners=not half_pixel)[0]
    ours = full.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
    # Positions of half pixels are rounded otherwise than PyTorch's.
    behind = (full.amax(0) - ours)[differ]
    assert (behind <= (1e-5 if half_pixel else 0)).all(), "labels differ only where classes tie"


@covers(decode.DECODE_WARPED)
@pytest.mark.parametrize("grid", SIZES)
@pytest.mark.parametrize("classes", [1, 3, 8, 19])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("align_corners", [True, False])
def test_decode_warped(kind, implementation, grid, classes, padding, align_corners):
    """Of a picture with regions of one class, noise where they meet, and flow that leads out of it."""
    if kind == "cuda" and INTERPRETED and grid[0] > 8 and (classes, grid[0]) not in ((3, 23), (19, 45)):
        pytest.skip("takes the interpreter long, and is the same loop over classes")
    size = (5 * grid[0] + 2, 4 * grid[1] + 3)
    coarse = F.interpolate(random(1, classes, 3, 3), grid, mode="bicubic")
    logits, flow = 3 * coarse + 0.05 * random(1, classes, *grid), random(1, 2, *grid, seed=1, scale=3.0)
    same = decode.ONE_CLASS.reference(logits)
    labels = called(implementation, kind, logits, flow, same, size, align_corners, padding)
    assert labels.shape == size and labels.dtype == np.uint8
    moved = warp.WARP.reference(logits.double(), flow.double(), align_corners, padding)
    full = F.interpolate(moved, size, mode="bilinear", align_corners=True)[0]
    ours = full.gather(0, torch.from_numpy(labels.astype(np.int64))[None])[0]
    assert (full.amax(0) - ours).max() <= 1e-4, "labels differ only where classes tie"
    # Those of one class everywhere were not looked at by chance.
    blind = torch.full_like(same, MIXED)
    assert np.mean(called(implementation, kind, logits, flow, blind, size, align_corners, padding) != labels) < 1e-3


@covers(paint.PAINT)
@pytest.mark.parametrize(("grid", "size"), [((8, 9), (33, 41)), ((5, 7), (5, 7)), ((6, 5), (47, 64))])
@pytest.mark.parametrize("way", [None, "zeros", "border", "half pixel"])
@pytest.mark.parametrize("draws", [False, True])
def test_paint(kind, implementation, grid, size, way, draws):
    """Of a picture with regions of one class, noise where they meet, and flow that leads out of it."""
    classes = 19
    coarse = F.interpolate(random(1, classes, 3, 3), grid, mode="bicubic")
    logits, flow = 3 * coarse + 0.05 * random(1, classes, *grid), random(1, 2, *grid, seed=1, scale=3.0)
    rng = np.random.default_rng(0)
    image, own = rng.integers(0, 256, (*size, 3), dtype=np.uint8), rng.random(size) < 0.2
    colours = Colours(rng.integers(0, 256, (256, 3), dtype=np.uint8), 0.3)
    same, half_pixel = decode.ONE_CLASS.reference(logits), way == "half pixel"
    moved = None if way is None or half_pixel else paint.Moved(on(kind, flow), on(kind, same), True, way)
    pixels = (own, image) if kind == "cpu" else (on(kind, torch.from_numpy(x)) for x in (own, image))
    own_there, image_there = pixels if draws else (None, None)
    got = implementation(on(kind, logits), size, half_pixel, moved, own_there, image_there, colours if draws else None)
    assert got.labels.shape == size and got.labels.dtype == np.uint8
    full = logits if moved is None else warp.WARP.reference(logits.double(), flow.double(), True, way)
    full = F.interpolate(full, size, mode="bilinear", align_corners=not half_pixel)[0]
    labelled = ~own if draws else np.ones(size, bool)
    assert (got.labels[~labelled] == 255).all() and (got.labels[labelled] < classes).all()
    ours = full.gather(0, torch.from_numpy(np.where(labelled, got.labels, 0).astype(np.int64))[None])[0]
    assert (full.amax(0) - ours)[labelled].max() <= 1e-4, "labels differ only where classes tie"
    if draws:
        np.testing.assert_array_equal(got.overlay, overlay(image, got.labels, colours.lut, 0.3))
    else:
        assert got.overlay is None


def test_paint_s_reference():
    """Which the others are not compared with, as classes may tie."""
    logits, flow = random(1, 5, 6, 7), random(1, 2, 6, 7, seed=1, scale=2.0)
    rng = np.random.default_rng(0)
    image, own = rng.integers(0, 256, (24, 28, 3), dtype=np.uint8), rng.random((24, 28)) < 0.2
    colours = Colours(rng.integers(0, 256, (256, 3), dtype=np.uint8))
    moved = paint.Moved(flow, decode.ONE_CLASS.reference(logits), padding="border")  # nothing outside to tie
    got = paint.PAINT.reference(logits, (24, 28), False, moved, torch.from_numpy(own), torch.from_numpy(image), colours)
    expected = paint.paint(logits, (24, 28), moved=moved, own=own, image=image, colours=colours)
    assert (got.labels != expected.labels).mean() < 0.002
    np.testing.assert_array_equal(got.overlay, overlay(image, got.labels, colours.lut))
    stays = paint.PAINT.reference(logits, (24, 28), True, None, None, None, None)
    assert stays.overlay is None and (stays.labels == decode.decode(logits, (24, 28), True)).mean() > 0.998


@covers(paint.DRAW)
def test_draw(kind, implementation):
    """Leaves on the device what `paint`, which `test_paint` compares, brings to the host."""
    logits, image = random(1, 5, 6, 7), np.random.default_rng(0).integers(0, 256, (24, 28, 3), dtype=np.uint8)
    colours = Colours(np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8))
    arguments = on(kind, logits), (24, 28), False, None, None, pixels_on(kind, image), colours
    labels, drawn = implementation(*arguments)
    expected = paint.PAINT.implementations[kind](*arguments)
    np.testing.assert_array_equal(labels.cpu().numpy(), expected.labels)
    np.testing.assert_array_equal(drawn.cpu().numpy(), expected.overlay)
    assert implementation(*arguments[:-1], None)[1] is None


@covers(transfer.UPLOAD)
def test_upload(kind, implementation):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    device = torch.device("cpu" if INTERPRETED else kind)
    for view in (pixels, pixels[:, :5], pixels[::-1, :, ::-1], pixels[..., 0] > 100):
        there = implementation(view, device)
        assert tuple(there.shape) == view.shape
        np.testing.assert_array_equal(there if kind == "cpu" else transfer.download(there)[0], view)
        np.testing.assert_array_equal(transfer.UPLOAD.reference(view, torch.device("cpu")).numpy(), view)
        if kind != "cpu":
            given = torch.empty(view.shape, dtype=there.dtype, device=device)
            assert implementation(view, device, given) is given
            np.testing.assert_array_equal(transfer.download(given)[0], view)


@covers(transfer.DOWNLOAD)
def test_download(kind, implementation):
    whole, part = torch.arange(12, dtype=torch.uint8).view(3, 4), torch.arange(6.0).view(2, 3).T
    got = implementation(on(kind, whole), on(kind, part))
    assert [x.dtype for x in got] == [np.uint8, np.float32]
    for array, expected in zip(got, (whole, part), strict=True):
        np.testing.assert_array_equal(array, expected.numpy())


@covers(decode.ONE_CLASS)
@pytest.mark.parametrize("grid", SIZES + THIN)
@pytest.mark.parametrize("classes", [1, 3, 19])
def test_one_class(kind, implementation, grid, classes):
    logits = F.interpolate(random(1, classes, 3, 3), grid, mode="bicubic")
    got = called(implementation, kind, logits)
    assert got.dtype == torch.uint8 and torch.equal(got, decode.ONE_CLASS.reference(logits))
    top = logits.argmax(1)[0]
    assert got[-1, -1] == top[-1, -1] and (got[top.diff(dim=0, append=top[-1:]) != 0] == MIXED).all()


@covers(difference.DIFFERENCE)
@pytest.mark.parametrize("size", SIZES)
def test_difference(kind, implementation, size):
    rng = np.random.default_rng(0)
    current, past = (torch.from_numpy(rng.integers(0, 256, (1, 3, *size), dtype=np.uint8)) for _ in range(2))
    motion = random(1, 2, *size, scale=2.0)
    motion[0, 0, 0, 0], motion[0, 1, 1, 1], motion[0, 0, 1, 0] = torch.nan, torch.inf, -torch.inf
    got = called(implementation, kind, current, past, motion)
    expected = difference.DIFFERENCE.reference(current, past, motion.double()).float()
    assert got.dtype == torch.float32 and got[0, 0, 0, 0] == got[0, 0, 1, 1] == got[0, 0, 1, 0] == torch.inf
    # Places are rounded to 4e-6 of a pixel, and neighbours lie up to 255 apart.
    torch.testing.assert_close(got, expected, atol=1e-3, rtol=0)


@covers(difference.DIFFERENCE_AT_REST)
@pytest.mark.parametrize("size", SIZES + THIN)
def test_difference_at_rest(kind, implementation, size):
    rng = np.random.default_rng(0)
    current, past = (torch.from_numpy(rng.integers(0, 256, (1, 3, *size), dtype=np.uint8)) for _ in range(2))
    got = called(implementation, kind, current, past)
    assert torch.equal(got, difference.DIFFERENCE_AT_REST.reference(current, past)) and got.shape == (1, 1, *size)


@covers(refine.LABEL_EDGES)
@pytest.mark.parametrize("size", SIZES + THIN)
@pytest.mark.parametrize("classes", [1, 7, 255])
def test_label_edges(kind, implementation, size, classes):
    logits = random(1, classes, *size)
    assert torch.equal(called(implementation, kind, logits), refine.LABEL_EDGES.reference(logits))


@covers(refine.GUIDED_SUM)
@pytest.mark.parametrize("size", SIZES + THIN)
@pytest.mark.parametrize("classes", [1, 19])
def test_guided_sum(kind, implementation, size, classes):
    guide, warped, intra = random(1, 11, *size).softmax(1), random(1, classes, *size, seed=1), random(1, classes, *size)
    expected = refine.GUIDED_SUM.reference(guide, warped, intra)
    torch.testing.assert_close(called(implementation, kind, guide, warped, intra), expected, atol=1e-6, rtol=0)


@covers(resample.NETWORK_INPUT)
@pytest.mark.parametrize("image", SIZES + THIN)
@pytest.mark.parametrize("size", SIZES + THIN)
@pytest.mark.parametrize("bgr", [False, True])
def test_network_input(kind, implementation, image, size, bgr):
    image = np.random.default_rng(0).integers(0, 256, (*image, 3), dtype=np.uint8)
    mean, std = (120.0, 110.0, 100.0), (50.0, 60.0, 70.0)
    expected = resample.NETWORK_INPUT.reference(image, size, bgr, mean, std)
    got = as_tensor(called(implementation, kind, pixels_on(kind, image), size, bgr, mean, std))
    torch.testing.assert_close(got, expected, atol=2e-6, rtol=0)
    assert got.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [(2, 3), (5, 9), (1, 1), (3, 1)])
@pytest.mark.parametrize("kind", ["reference", *resample.RESIZE.implementations])
def test_resize(kind, size):
    """Of a plane, which bilinear interpolation reproduces: its value where the corners fall on each other."""
    implementation = resample.RESIZE.reference if kind == "reference" else resample.RESIZE.on(kind)
    h, w = 3, 5
    x = (torch.arange(h)[:, None] * 10.0 + torch.arange(w)).expand(1, 2, h, w)
    got = called(implementation, "cpu" if kind == "reference" else kind, x, size)
    rows, columns = (torch.arange(n) * ((m - 1) / max(n - 1, 1)) for n, m in zip(size, (h, w), strict=True))
    torch.testing.assert_close(got, (rows[:, None] * 10 + columns).expand(1, 2, *size), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["reference", *resample.RESAMPLE.implementations])
@pytest.mark.parametrize(
    ("target_half_pixel", "rows"), [(False, [0.0, 0.625, 1.5, 2.375, 3.0]), (True, [0.0, 0.7, 1.5, 2.3, 3.0])]
)
def test_resample(kind, target_half_pixel, rows):
    """Of a picture of 8 rows, 4 pixels that cover two each: their centres are at 0.5, 2.5, 4.5, 6.5."""
    implementation = resample.RESAMPLE.reference if kind == "reference" else resample.RESAMPLE.on(kind)
    x = (torch.arange(4.0)[:, None] + torch.zeros(4)).expand(1, 1, 4, 4)
    got = called(implementation, "cpu" if kind == "reference" else kind, x, (5, 4), (8, 8), True, target_half_pixel)
    expected = torch.tensor(rows)
    torch.testing.assert_close(got, expected[:, None].expand(1, 1, 5, 4), atol=1e-5, rtol=0)


@covers(resample.RESIZE)
@pytest.mark.parametrize("given", SIZES + THIN)
@pytest.mark.parametrize("size", [(6, 7), (1, 1), (30, 50)])
@pytest.mark.parametrize("shape", [(1, 2), (1, 11), (3, 1), (2, 9)])
def test_resize_of_any_layout(kind, implementation, given, size, shape):
    planar = random(*shape, *given)
    expected = F.interpolate(planar, size, mode="bilinear", align_corners=True)
    for layout in (torch.contiguous_format, torch.channels_last):
        got = called(implementation, kind, planar.contiguous(memory_format=layout), size)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        assert got.is_contiguous(memory_format=layout) or shape[1] == 1 or given == (1, 1)
    part = F.pad(planar, (2, 1, 3, 0)).contiguous(memory_format=torch.channels_last)[..., 3:, 2:-1]
    torch.testing.assert_close(called(implementation, kind, part, size), expected, atol=1e-5, rtol=1e-5)
    half = called(implementation, kind, planar.half(), size)
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), expected, atol=4e-3, rtol=2e-3)


@covers(resample.RESAMPLE)
@pytest.mark.parametrize("given", SIZES + THIN)
@pytest.mark.parametrize("size", [(6, 7), (1, 1), (30, 50)])
@pytest.mark.parametrize("shape", [(1, 2), (2, 11)])
@pytest.mark.parametrize("half_pixels", [(False, True), (True, False)])
def test_resample_of_any_layout(kind, implementation, given, size, shape, half_pixels):
    x, picture_size = random(*shape, *given), (61, 83)
    expected = resample.RESAMPLE.reference(x.double(), size, picture_size, *half_pixels).float()
    for layout in (torch.contiguous_format, torch.channels_last):
        got = called(implementation, kind, x.contiguous(memory_format=layout), size, picture_size, *half_pixels)
        torch.testing.assert_close(got, expected, atol=2e-5, rtol=1e-5)


@covers(shares.SHARES)
@pytest.mark.parametrize("size", SIZES + THIN)
@pytest.mark.parametrize("classes", [1, 2, 7, 8, 11, 19, 40])
def test_shares(kind, implementation, size, classes):
    logits = random(1, classes, *size, scale=20.0)
    logits[0, :, 0, 0] = torch.linspace(-1e4, 1e4, classes)
    got = called(implementation, kind, logits)
    expected = shares.SHARES.reference(logits.double())
    torch.testing.assert_close(got, expected.float(), atol=1e-7, rtol=2e-6)
    assert got.dtype == torch.float32 and (got.sum(1) - 1).abs().max() < 1e-6
    if classes > 1:
        logits[0, 0], logits[0, 1, -1, -1] = -torch.inf, torch.nan
        got = called(implementation, kind, logits)
        assert (got[0, 0].flatten()[:-1] < 1e-37).all() and got[0, :, -1, -1].isnan().all()


@covers(shares.TOP_SHARES)
@pytest.mark.parametrize("size", SIZES + THIN)
@pytest.mark.parametrize("classes", [1, 7, 11, 19])
def test_top_shares(kind, implementation, size, classes):
    logits = random(1, classes, *size, scale=3.0)
    expected = shares.TOP_SHARES.reference(logits.double())
    got = called(implementation, kind, logits)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected.float(), atol=0, rtol=2e-6)
    assert torch.equal(got, shares.shares(logits).amax(1, keepdim=True)) or kind != "cpu"


def test_scores_of_queries():
    """PyTorch computes them everywhere; of arrays it makes arrays."""
    masks, classes = random(1, 3, 4, 5), random(1, 3, 8, seed=1)
    expected = queries.SCORES_OF_QUERIES.reference(masks, classes, (6, 7))
    assert torch.equal(queries.scores_of_queries(masks, classes, (6, 7)), expected)
    got = queries.scores_of_queries(masks.numpy(), classes.numpy(), (6, 7))
    np.testing.assert_array_equal(got, expected.numpy())


@covers(fuse.FUSE)
@pytest.mark.parametrize("size", [(45, 60), (23, 37), *THIN])
@pytest.mark.parametrize("grid", [(23, 37), (1, 1), (30, 50)])
@pytest.mark.parametrize("classes", [1, 7, 8, 11, 19])
@pytest.mark.parametrize("half_pixel", [False, True])
def test_fuse_of_random_scores(kind, implementation, size, grid, classes, half_pixel):
    if kind == "cuda" and INTERPRETED and grid != (23, 37):
        pytest.skip("takes the interpreter long, and is the same loop over classes")
    scores, carried = random(1, classes, *size, scale=5.0), random(1, classes, *grid, seed=1, scale=5.0)
    apart = random(1, 1, *grid, scale=8.0).abs()
    apart[0, 0, 0, 0], apart[0, 0, -1, -1] = torch.inf, 0
    picture_size = (4 * size[0] + 3, 4 * size[1] + 1) if half_pixel else None
    expected = fuse.FUSE.reference(scores.double(), carried.double(), apart.double(), picture_size)
    got = called(implementation, kind, scores, carried, apart, picture_size)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected.float(), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("kind", ["reference", *fuse.FUSE.implementations])
@pytest.mark.parametrize("half_pixel", [False, True])
def test_fuse(kind, half_pixel):
    """Of two classes whose probabilities are known."""
    implementation = fuse.FUSE.reference if kind == "reference" else fuse.FUSE.on(kind)
    new, past = torch.tensor([0.2, 0.8]), torch.tensor([0.7, 0.3])
    scores, carried = (p.log().view(1, 2, 1, 1).expand(1, 2, 4, 6) + 5 for p in (new, past))
    for apart, share in ((0.0, 0.5), (fuse.TOLERANCE, 0.5 * np.exp(-1)), (torch.inf, 0.0)):
        picture_size = (8, 12) if half_pixel else None
        apart = torch.full((1, 1, 4, 6), apart)
        got = called(implementation, "cpu" if kind == "reference" else kind, scores, carried, apart, picture_size)
        expected = ((1 - share) * new + share * past).view(1, 2, 1, 1).expand(1, 2, 4, 6)
        torch.testing.assert_close(got.exp(), expected, atol=1e-6, rtol=0)
    certain = torch.tensor([-100.0, 100.0]).view(1, 2, 1, 1)
    got = called(
        implementation, "cpu" if kind == "reference" else kind, certain, certain, torch.zeros(1, 1, 1, 1), None
    )
    assert got[0, 0].exp().item() == pytest.approx(fuse.LEAST_PROBABILITY)


@covers(update.UPDATE)
@pytest.mark.parametrize("size", SIZES + THIN)
@pytest.mark.parametrize("fresh", [(6, 7), (1, 1), (30, 50)])
@pytest.mark.parametrize("classes", [1, 7, 8, 19])
@pytest.mark.parametrize("half_pixel", [False, True])
def test_update(kind, implementation, size, fresh, classes, half_pixel):
    carried, new, apart = random(1, classes, *size), random(1, classes, *fresh, seed=1), random(1, 1, *size, scale=12.0)
    apart = apart.abs()
    apart[0, 0, 0, 0], apart[0, 0, -1, -1] = torch.inf, 0
    picture_size = (4 * size[0] + 3, 4 * size[1] + 1) if half_pixel else None
    expected = update.UPDATE.reference(carried.double(), new.double(), apart.double(), picture_size)
    got = called(implementation, kind, carried, new, apart, picture_size)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected.float(), atol=1e-6, rtol=0)
    if size != (1, 1):
        assert torch.equal(got[..., -1, -1], carried[..., -1, -1])


@covers(picture.GRID_PICTURE)
@pytest.mark.parametrize(
    ("size", "grid"), [((64, 96), (8, 12)), ((67, 93), (8, 11)), ((64, 64), (16, 16)), ((9, 8), (2, 1))]
)
def test_grid_picture(kind, implementation, size, grid):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = picture.GRID_PICTURE.reference(image, grid)
    got = as_tensor(called(implementation, kind, pixels_on(kind, image), grid, None))
    assert got.dtype == torch.uint8 and got.shape == (1, 3, *grid)
    # OpenCV rounds the Gaussian's weights to 1/256.
    assert (got.int() - expected.int()).abs().max() <= 1
    padded = np.zeros((size[0], size[1] + 5, 3), np.uint8)
    padded[:, : size[1]] = image
    again = called(implementation, kind, pixels_on(kind, padded[:, : size[1]]), grid, None)
    assert torch.equal(as_tensor(again), got)


@covers(look.LOOK)
@pytest.mark.parametrize(
    ("size", "smaller"),
    [((64, 96), (16, 24)), ((66, 70), (33, 35)), ((30, 45), (10, 15)), ((32, 43), (20, 43)), ((45, 61), (13, 17))],
)
def test_look(kind, implementation, size, smaller):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image[:8] = 255
    expected = look.LOOK.reference(image, smaller)
    got = implementation(pixels_on(kind, image), smaller)
    # Sums over squares are exact; the CPU rounds other areas twice.
    side = size[0] // smaller[0]
    is_exact = (smaller[0] * side, smaller[1] * side) == size and (kind != "cpu" or side & (side - 1) == 0)
    levels = list(map(as_tensor, got.levels))
    for level, own in zip(expected.levels, levels, strict=True):
        assert own.dtype == torch.float32 and (own.cpu() - level).abs().max() <= (0 if is_exact else 1)
    assert expected.levels[0][PAD, PAD] == 255 and (got.shrunk is None) == (kind == "cpu")
    compared = implementation(pixels_on(kind, image), smaller, True)
    assert all(map(torch.equal, map(as_tensor, compared.levels), levels))
    assert (compared.shrunk is None) == (kind == "cpu" and not (is_exact and side > 1))
    if compared.shrunk is not None:
        assert (as_tensor(compared.shrunk).cpu().int() - expected.shrunk.int()).abs().max() <= 1  # halves
        along, alone = (
            as_tensor(picture.GRID_PICTURE.implementations[kind](pixels_on(kind, image), smaller, shrunk))
            for shrunk in (compared.shrunk, None)
        )
        assert (along.int() - alone.int()).abs().max() <= (1 if kind == "cpu" else 0)


def layouts(image):
    """The same picture as cameras send it, each a view of what came."""
    h, w = image.shape[:2]
    padded, four = np.zeros((h, w + 5, 3), np.uint8), np.full((h, w, 4), 77, np.uint8)
    padded[:, :w], four[..., :3] = image, image
    swapped = np.full((h, w, 4), 77, np.uint8)
    swapped[..., :3] = image[..., ::-1]
    return {
        "rgb8": image,
        "padded": padded[:, :w],
        "bgr8": np.ascontiguousarray(image[..., ::-1])[..., ::-1],
        "rgba8": four[..., :3],
        "bgra8": swapped[..., 2::-1],
        "upside down": np.ascontiguousarray(image[::-1])[::-1],
        "planes": np.ascontiguousarray(image.transpose(2, 0, 1)).transpose(1, 2, 0),
    }


@covers(grey.GREY_PICTURE)
@pytest.mark.parametrize(
    ("size", "smaller"), [((64, 96), (16, 24)), ((66, 70), (33, 35)), ((64, 64), (4, 4)), ((64, 75), (64, 75))]
)
def test_grey_picture(kind, implementation, size, smaller):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    image[:16] = 255
    expected, reference = grey.GREY_PICTURE.reference(image, smaller).numpy(), grey.GREY_PICTURE.reference
    assert expected[0, 0] == 255 and expected.dtype == np.uint8 and expected.shape == smaller
    for layout, view in layouts(image).items():
        np.testing.assert_array_equal(implementation(view, smaller), expected, layout)
    mono = np.broadcast_to(image[..., :1].copy(), image.shape)
    np.testing.assert_array_equal(implementation(mono, smaller), reference(mono, smaller).numpy())
    # Where pixels are cut into parts, each is rounded before.
    odd = size[0] - 1, size[1] - 3
    assert np.abs(implementation(image, odd).astype(int) - reference(image, odd).numpy()).max() <= 1


@covers(flow.PYRAMID)
@pytest.mark.parametrize("size", [(8, 8), (9, 17), (64, 96), (131, 67)])
def test_pyramid(kind, implementation, size):
    grey = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    levels = flow.levels_of(*size)
    got, expected = (f(grey, levels) for f in (implementation, flow.PYRAMID.reference))
    assert len(got) == levels and all(map(np.array_equal, got, map(as_array, expected)))


@covers(flow.DENSE_FLOW)
@pytest.mark.parametrize("order", flow.ORDERS)
@pytest.mark.parametrize(("size", "grid"), [((9, 17), (9, 17)), ((131, 67), (32, 16)), ((120, 160), (30, 40))])
def test_dense_flow(kind, implementation, order, size, grid):
    """Of noise that has moved by whole pixels; two squares go elsewhere, which patches tell each other."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)
    h, w = size
    past, now = noise[20 : 20 + h, 30 : 30 + w], noise[22 : 22 + h, 25 : 25 + w].copy()
    now[h // 4 : h // 2, w // 3 : w // 2] = noise[20 + h // 4 : 20 + h // 2, 33 + w // 3 : 33 + w // 2]
    now[h // 2 : h // 2 + h // 4, : w // 2] = noise[27 + h // 2 : 27 + h // 2 + h // 4, 36 : 36 + w // 2]
    now, past = (cv2.GaussianBlur(np.ascontiguousarray(x), (0, 0), 2.0) for x in (now, past))
    current, previous = ([as_tensor(level) for level in flow.pyramid(x)] for x in (now, past))
    expected = flow.DENSE_FLOW.reference(current, previous, grid, order)
    got = called(implementation, kind, current, previous, grid, order)
    assert got.shape == expected.shape == (1, 2, *grid) and got.dtype == torch.float32
    apart = (got - expected).norm(dim=1)
    # Sums are rounded otherwise; where two places fit equally well, patches may take the other.
    least = 0.999 if kind == "cuda" and INTERPRETED else 0.995
    assert apart.median() < 1e-4 and (apart < 0.01).float().mean() >= least
    assert expected.norm(dim=1).mean() > 0.5 or size == (9, 17)


@covers(vote.VOTE)
@pytest.mark.parametrize("size", [*SIZES, *THIN, (90, 120)])
@pytest.mark.parametrize("wanted", [*SIZES, *THIN, (44, 59), (30, 40)])
@pytest.mark.parametrize("ids", [(0, 1, 2, 255), tuple(range(256))])
def test_vote(kind, implementation, size, wanted, ids):
    labels = np.random.default_rng(0).choice(np.array(ids, np.uint8), size)
    labels[: size[0] // 2] = labels[0, 0]  # what is uniform goes another way
    np.testing.assert_array_equal(implementation(labels, wanted), vote.VOTE.reference(labels, wanted))


def labelled(size, labels_size, has_confidence):
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, 256, labels_size, dtype=np.uint8) if has_confidence else None
    labels = rng.integers(0, 256, labels_size, dtype=np.uint8)
    return points.Labelled(rng.integers(0, 256, (*size, 3), dtype=np.uint8), labels, confidence)


def same_points(got, expected):
    assert got.shape == expected.shape and got.dtype == np.uint8
    got, expected = (x.view(np.uint32) for x in (got, expected))
    np.testing.assert_array_equal(got[..., 3:], expected[..., 3:])
    np.testing.assert_allclose(got.view(np.float32)[..., :3], expected.view(np.float32)[..., :3], rtol=2e-6, atol=1e-6)


@covers(points.DEPTH_POINTS)
@pytest.mark.parametrize(
    ("size", "labels_size", "stride"), [((45, 60), (45, 60), 1), ((45, 60), (22, 31), 2), ((45, 60), (50, 13), 1)]
)
@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
@pytest.mark.parametrize("has_confidence", [True, False])
@pytest.mark.parametrize("has_fine", [True, False])
def test_depth_points(kind, implementation, size, labels_size, stride, dtype, has_confidence, has_fine):
    depth = np.random.default_rng(1).integers(0, 9000, size).astype(dtype)
    if dtype == np.float32:
        depth[0, 1], depth[1, 0], depth[1, 1], depth[2, 2] = np.nan, np.inf, -np.inf, -1.0
    picture = labelled(size, labels_size, has_confidence)
    if has_fine:
        fine = np.random.default_rng(2).integers(0, 4, size, dtype=np.uint8)
        picture = replace(picture, fine=fine, labels=vote.vote(fine, labels_size))
    arguments = picture, depth, PROJECTION, stride
    same_points(implementation(*arguments), points.DEPTH_POINTS.reference(*arguments))


@covers(points.CLOUD_POINTS)
@pytest.mark.parametrize("shape", [(30, 40), (1, 500), (1, 0)])
@pytest.mark.parametrize("has_confidence", [True, False])
def test_cloud_points(kind, implementation, shape, has_confidence):
    positions = np.random.default_rng(1).normal(0.0, 3.0, (*shape, 3)).astype(np.float32)
    positions.reshape(-1, 3)[:4] = np.array([[np.nan] * 3, [0, 0, 0], [np.inf, 0, 1], [0, 0, -1]])[: shape[1]]
    arguments = labelled((45, 60), (45, 60), has_confidence), positions, PROJECTION
    expected = points.CLOUD_POINTS.reference(*arguments)
    assert (shape[1] == 0) or 0.05 < (expected.view(np.uint32)[..., 3] != 0).mean() < 0.5
    same_points(implementation(*arguments), expected)


@covers(stretch.STRETCH)
@pytest.mark.parametrize("how", ["aligned", "linear", "bilinear", "bicubic", "torch_bilinear", "torch_bicubic"])
@pytest.mark.parametrize("size", [(20, 33), (45, 71), (60, 40)])
def test_stretch(kind, implementation, how, size):
    image = np.random.default_rng(0).integers(0, 256, (45, 60, 3), dtype=np.uint8)
    got = implementation(pixels_on(kind, image), size, how)
    got = got if kind == "cpu" else transfer.download(got)[0]
    expected = stretch.STRETCH.reference(image, size, how).numpy()
    assert got.shape == (*size, 3) and got.dtype == np.uint8
    apart = np.abs(got.astype(int) - expected)
    assert apart.max() <= 2 and (apart > 1).mean() < 0.001 and (kind == "cpu" or apart.max() == 0)


@covers(change.SMALL_PICTURE)
@pytest.mark.parametrize("size", [(64, 96), (75, 101)])
def test_small_picture(kind, implementation, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    got = implementation(pixels_on(kind, image))
    got = got if kind == "cpu" else transfer.download(got)[0]
    expected = change.SMALL_PICTURE.reference(torch.from_numpy(image)).numpy()
    assert got.shape == (size[0] // 8, size[1] // 8) and np.abs(got - expected).max() <= 1


@covers(change.CHANGE)
@pytest.mark.parametrize("scale", [1, 2, None])
def test_change(kind, implementation, scale):
    """OpenCV samples at 32nds of a pixel."""
    current, past = (F.interpolate(random(1, 1, 5, 6, seed=i), (30, 40), mode="bicubic")[0, 0] * 40 for i in range(2))
    motion = None if scale is None else F.interpolate(random(1, 2, 3, 4, seed=2, scale=3.0), (30 * scale, 40 * scale))
    got = float(implementation(*(on(kind, x) for x in (current, past, motion))))
    assert 0.1 < got < 1 and got == pytest.approx(float(change.CHANGE.reference(current, past, motion)), abs=2e-3)


def test_every_operation_is_compared():
    assert {f"test_{name}" for name in OPERATIONS} <= set(globals())


def test_a_registered_implementation_is_taken_and_compared(monkeypatch):
    monkeypatch.setattr(warp.WARP, "implementations", dict(warp.WARP.implementations))
    values, flow = (torch.empty(1, channels, 4, 5, device="meta") for channels in (3, 2))
    assert warp.WARP.on("meta").__wrapped__ is warp.WARP.reference

    @warp.WARP.register("meta")
    def dummy(*arguments):
        return arguments

    assert warp.warp(values, flow) == (values, flow, True, "zeros")
    assert [case.id for case in implementations(warp.WARP)] == ["cpu", "meta"]


def test_names_and_device_types_are_taken_once():
    with pytest.raises(ValueError, match="expected a new name, got 'warp' again"):
        Operation("warp", "warp.warp_reference")
    with pytest.raises(ValueError, match="warp: expected one implementation for 'cpu'"):
        warp.WARP.register("cpu")
