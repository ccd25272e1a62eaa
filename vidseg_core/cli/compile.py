"""`vidseg compile`: a step of the installation, so that the first start waits for no compiler."""

from __future__ import annotations

import argparse
import time

from vidseg_core.cli.bench import size_of_frames

HELP = "compile kernels and the default network for this computer, as a step of the installation"
EXAMPLES = """\
examples:
  vidseg compile
      what the node needs for cameras of 1280 x 720 and 1920 x 1080 pixels, in a minute
  vidseg compile --size 640x480 --weights mine.safetensors
      for another camera, and another network

`make .venv` and `colcon build` run it; after `pip install`, and on the vehicle itself where the installation was built
elsewhere, it is run by hand. What it writes lies beside the package, for all users; without it the first start compiles
the same into the user's own cache.
"""
SIZES = ((720, 1280), (1080, 1920))
UPDATE_WEIGHTS, REFINE_WEIGHTS = "camvid-update-lite0", "camvid-swnet-seq"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", metavar="NAME|PATH", help="segmentation network (default: the node's)")
    parser.add_argument(
        "--size", type=size_of_frames, action="append", metavar="WxH",
        help="of the camera (repeatable; default: 1280x720 and 1920x1080)",
    )  # fmt: skip
    parser.add_argument("--num-threads", type=int, default=0, metavar="N", help="as the node will have (default: all)")


def main(args: argparse.Namespace) -> int:
    from vidseg_core.engine.config import DEFAULT_WEIGHTS, EngineConfig
    from vidseg_core.engine.precompile import compile_kernels, compile_networks
    from vidseg_core.kernel_cache import use_the_installation

    use_the_installation()
    begin_s = time.monotonic()
    config = EngineConfig(device="cpu", num_threads=args.num_threads)
    compile_kernels(config, UPDATE_WEIGHTS, REFINE_WEIGHTS)
    print(f"kernels: {time.monotonic() - begin_s:.0f} s")
    config = EngineConfig(weights=args.weights or DEFAULT_WEIGHTS, device="cpu", num_threads=args.num_threads)
    for height, width in args.size or SIZES:
        begin_s = time.monotonic()
        runtimes = ", ".join(f"{name} {runtime}" for name, runtime in compile_networks(config, (height, width)).items())
        print(f"{width} x {height}: {runtimes}, {time.monotonic() - begin_s:.0f} s")
    return 0
