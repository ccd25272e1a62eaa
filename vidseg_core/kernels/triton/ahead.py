"""Compile every kernel without a card, and count what it takes of one.

    python -m vidseg_core.kernels.triton.ahead 87 90

prints, for each compute capability, registers of a thread, stack (more than 0 means that registers are spilled), shared
memory and instructions. The interpreter passes code that the compiler refuses, and knows no registers.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from vidseg_core.kernels.cpu.dis import PAD
from vidseg_core.kernels.triton import difference, flow, fuse, launch, look, paint, refine, stretch, update, warp

CLASSES = 19
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Case:
    """Say how an engine calls a kernel at 2048 x 1024 with a grid of 512 x 256.

    Attributes:
        kernel: to be compiled.
        types: of its arguments, such as "*fp32"; those not named are "i32".
        constants: its `constexpr` arguments.
        warps: of a program.
    """

    kernel: Any
    types: dict[str, str]
    constants: dict[str, Any] = field(default_factory=dict)
    warps: int = 4


@dataclass(frozen=True)
class Cost:
    """Hold what a program of a kernel takes."""

    registers: int
    stack: int
    shared: int
    instructions: int


def _floats(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "fp32")


def _arrays(*names: str, of: str = "fp32") -> dict[str, str]:
    return dict.fromkeys(names, f"*{of}")


_ELEMENTS = {"BLOCK": launch.BLOCK}
_SEARCH = _arrays("current", "previous", "coarse", "before", "after")
_LOOK = (
    _arrays("image", "shrunk", of="u8")
    | _arrays("row_first", "column_first", of="i32")
    | _arrays("row_shares", "column_shares", "base")
)
_LOOKS = {"GREY": True, "COLOURS": True, "PAD": PAD}
_INPUT = (
    _arrays("image", of="u8")
    | _arrays("rows", "columns", of="i32")
    | _arrays("row_ways", "column_ways", "out")
    | _floats(*(f"{name}_{c}" for name in ("gain", "offset") for c in range(3)))
)
_MOVES = {"CLASSES": CLASSES, "MOVES": True, "BORDER": True}
_STAYS = {"CLASSES": CLASSES, "MOVES": False, "BORDER": False}
_ORIGIN = _arrays("way") | _floats("stretch_y", "stretch_x", "shift")
_POINTS = _arrays("logits") | _arrays("known", "top", of="u8") | _ORIGIN
_SHOWN = _arrays("own", "image", "labels", "overlay", of="u8") | _arrays("table", of="i32")
_MIXED = (
    _arrays("logits", "row_ways", "column_ways")
    | _arrays("cells", "count", "row_starts", "column_starts", of="i32")
    | _ORIGIN
    | _SHOWN
)
_CELL = {"CELL_Y": 4, "CELL_X": 4, "CELLS": paint.CELLS, "PIXELS": paint.PIXELS}
_DRAWS = {"MASKS": True, "DRAWS": True}
_PLACES = _arrays("rows", "columns", of="i32") | _arrays("down", "across")

CASES = {
    "look": Case(look.look_kernel, _LOOK, {"SQUARE": 4, "TAPS_Y": 4, "TAPS_X": 4} | _LOOKS | _ELEMENTS),
    "look, areas of any size": Case(
        look.look_kernel, _LOOK, {"SQUARE": 0, "TAPS_Y": 5, "TAPS_X": 5} | _LOOKS | _ELEMENTS
    ),
    "look, smooth": Case(
        look.smooth_kernel, _arrays("shrunk", "out", of="u8") | _floats("w0", "w1", "w2", "w3"), _ELEMENTS
    ),
    "look, network input": Case(look.input_kernel, _INPUT, {"BGR": False} | _ELEMENTS),
    "warp": Case(
        warp.warp_kernel,
        _arrays("values", "motion", "out") | _floats("stretch_y", "stretch_x", "shift"),
        {"CHANNELS": CLASSES, "BORDER": True} | _ELEMENTS,
    ),
    "warp, half precision": Case(
        warp.warp_kernel,
        _arrays("values", "out", of="fp16") | _arrays("motion") | _floats("stretch_y", "stretch_x", "shift"),
        {"CHANNELS": CLASSES, "BORDER": True} | _ELEMENTS,
    ),
    "compose": Case(warp.compose_kernel, _arrays("motion", "flow", "out"), _ELEMENTS),
    "paint, points": Case(paint.points_kernel, _POINTS, _MOVES | _ELEMENTS),
    "paint, points that stay": Case(paint.points_kernel, _POINTS, _STAYS | _ELEMENTS),
    "paint, list": Case(paint.list_kernel, _arrays("top", of="u8") | _arrays("cells", "count", of="i32"), _ELEMENTS),
    "paint, cells of one class": Case(
        paint.same_kernel,
        _SHOWN | _arrays("top", of="u8") | _arrays("rows", "columns", of="i32"),
        _DRAWS | {"TILE_Y": paint.TILE_Y, "TILE_X": paint.TILE_X},
    ),
    "paint, mixed cells": Case(paint.mixed_kernel, _MIXED, _MOVES | _DRAWS | _CELL, warps=1),
    "paint, mixed cells that stay": Case(
        paint.mixed_kernel, _MIXED, _STAYS | {"MASKS": False, "DRAWS": False} | _CELL, warps=1
    ),
    "paint, half precision": Case(
        paint.mixed_kernel, _MIXED | _arrays("logits", of="fp16"), _MOVES | _DRAWS | _CELL, warps=1
    ),
    "difference": Case(
        difference.difference_kernel,
        _arrays("current", "past", of="u8") | _arrays("motion", "out"),
        {"CHANNELS": 3} | _ELEMENTS,
    ),
    "update": Case(
        update.update_kernel,
        _arrays("carried", "fresh", "apart", "out") | _PLACES | _floats("tolerance"),
        {"CHANNELS": CLASSES} | _ELEMENTS,
    ),
    "fuse": Case(
        fuse.fuse_kernel,
        _arrays("scores", "carried", "apart", "out") | _PLACES | _floats("weight", "tolerance", "least"),
        {"CHANNELS": CLASSES, "LANES": 32, "PIXELS": fuse.PIXELS},
    ),
    "argmax": Case(
        refine.argmax_kernel, _arrays("logits") | _arrays("out", of="u8"), {"CHANNELS": CLASSES} | _ELEMENTS
    ),
    "edges": Case(refine.edges_kernel, _arrays("labels", of="u8") | _arrays("out"), _ELEMENTS),
    "guided sum": Case(
        refine.sum_kernel, _arrays("guide", "warped", "intra", "out"), {"CHANNELS": CLASSES} | _ELEMENTS
    ),
    "stretch": Case(
        stretch.stretch_kernel,
        _arrays("image", "out", of="u8") | _arrays("first", of="i32") | _arrays("weights"),
        {"TAPS": 6} | _ELEMENTS,
    ),
    "flow, halve": Case(flow.halve_kernel, _arrays("picture", "out"), _ELEMENTS),
    "flow, first search": Case(flow.search_kernel, _SEARCH, {"STEP": 6, "FIRST": True, "LAST": False, "P": 1}, warps=1),
    "flow, round": Case(flow.search_kernel, _SEARCH, {"STEP": 6, "FIRST": False, "LAST": False, "P": 1}, warps=1),
    "flow, last round": Case(flow.search_kernel, _SEARCH, {"STEP": 6, "FIRST": False, "LAST": True, "P": 1}, warps=1),
    "flow, densify": Case(
        flow.densify_kernel,
        _arrays("current", "previous", "patches", "out") | _floats("unit_u", "unit_v"),
        {"STEP": 6, "CELL_Y": 2, "CELL_X": 2, "BLOCK": flow.CELLS},
    ),
}
"""Every kernel, by what it does."""


def compiled(case: Case, capability: int) -> Any:
    """Compile a kernel for a compute capability, such as 87 (Orin) or 90 (H100); needs no card.

    Raises:
        triton.compiler.CompilationError: the compiler refuses it.
    """
    names = case.kernel.arg_names
    types = {name: "constexpr" if name in case.constants else case.types.get(name, "i32") for name in names}
    aligned = [["tt.divisibility", 16]]
    source = ASTSource(
        case.kernel,
        signature=types,
        constexprs={(names.index(name),): value for name, value in case.constants.items()},
        attrs={(i,): aligned for i, name in enumerate(names) if types[name].startswith("*")},
    )
    options = {"num_warps": case.warps, "enable_fp_fusion": False}
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def cost(binary: Any) -> Cost:
    """Count what a compiled kernel takes, by NVIDIA's tools in Triton's wheel."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([TOOLS / "cuobjdump", option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        )
    numbers = {name: int(value) for name, value in re.findall(r"(REG|STACK):(\d+)", usage)}
    instructions = len(re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+ )?[A-Z]", code))
    return Cost(numbers["REG"], numbers["STACK"], binary.metadata.shared, instructions)


def costs(capability: int) -> Iterator[tuple[str, Cost]]:
    """Compile all kernels for a compute capability, one after the other."""
    for name, case in CASES.items():
        yield name, cost(compiled(case, capability))


def main() -> int:
    """Print the table; returns 1 if a kernel spills."""
    parser = argparse.ArgumentParser(description="Compile all Triton kernels without a card and count what they take.")
    parser.add_argument(
        "capabilities", type=int, nargs="*", default=[87, 90], help="compute capabilities (default: 87 90)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args()
    found = {f"sm_{capability}": dict(costs(capability)) for capability in args.capabilities}
    if args.json:
        print(json.dumps({target: {name: asdict(c) for name, c in table.items()} for target, table in found.items()}))
    else:
        print(f"Triton {triton.__version__}")
        for target, table in found.items():
            print(f"\n{target:26s}{'registers':>10s}{'stack':>7s}{'shared':>8s}{'instructions':>14s}")
            for name, c in table.items():
                print(f"{name:26s}{c.registers:10d}{c.stack:7d}{c.shared:8d}{c.instructions:14d}")
    return int(any(c.stack for table in found.values() for c in table.values()))


if __name__ == "__main__":
    sys.exit(main())
