#!/bin/sh
# torch 2.13.0 on x86-64 with bfloat16 instructions: the gradient of a 5 x 5 depthwise convolution by its weights takes
# LONGER in bfloat16 than in float32, in the channels-last layout that is recommended for both, while the convolution
# itself is faster. One would expect half precision to help both ways, as it does with dense convolutions. With the
# depthwise layers of mobile networks, autocast so makes a training step slower. One thread, 672 channels, batch of 8,
# 24 x 32 (milliseconds of one run):
#
#   forward: float32 9.0, bfloat16 2.6; gradient by the weights: float32 82, bfloat16 318
#
# Exit status 0 while it is so, 1 once it is not, 2 where the processor has no such instructions.
set -eu
grep -q avx512_bf16 /proc/cpuinfo || exit 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy==2.2.6
"$work/venv/bin/python" - <<'END'
import sys
import time

import torch

torch.set_num_threads(1)


def fastest(compute):
    best = float("inf")
    for _ in range(9):
        started = time.perf_counter()
        compute()
        best = min(best, time.perf_counter() - started)
    return 1e3 * best


def times(dtype):
    x = torch.randn(8, 672, 24, 32).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(672, 1, 5, 5).to(dtype)
    result = torch.nn.functional.conv2d(x, weight, None, 1, 2, 1, 672)
    forward = fastest(lambda: torch.nn.functional.conv2d(x, weight, None, 1, 2, 1, 672))
    backward = fastest(
        lambda: torch.ops.aten.convolution_backward(
            result, x, weight, None, [1, 1], [2, 2], [1, 1], False, [0, 0], 672, [False, True, False]
        )
    )
    return forward, backward


(forward32, back32), (forward16, back16) = times(torch.float32), times(torch.bfloat16)
print(
    f"forward: float32 {forward32:.1f}, bfloat16 {forward16:.1f}; "
    f"gradient by the weights: float32 {back32:.0f}, bfloat16 {back16:.0f}"
)
sys.exit(0 if back16 > 1.3 * back32 and forward16 < forward32 else "changed: bfloat16 is as fast")
END
