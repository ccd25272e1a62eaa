"""Features and name of the processor, as Linux tells them: x86 and ARM (`flags` and `Features` in /proc/cpuinfo)."""

from __future__ import annotations

import platform
from pathlib import Path

DEVICE_TREE_MODEL = "/proc/device-tree/model"
ARM = "0x41"
# Part numbers of cores designed by ARM (each core's Technical Reference Manual, MIDR_EL1), as people name them.
ARM_CORES = {
    "0xd03": "Cortex-A53",
    "0xd04": "Cortex-A35",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd09": "Cortex-A73",
    "0xd0a": "Cortex-A75",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd0d": "Cortex-A77",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd46": "Cortex-A510",
    "0xd47": "Cortex-A710",
    "0xd49": "Neoverse-N2",
    "0xd4b": "Cortex-A78C",
    "0xd4f": "Neoverse-V2",
}


def is_arm() -> bool:
    """Return whether this is a 64 bit ARM processor."""
    return platform.machine() in ("aarch64", "arm64")


def features() -> set[str]:
    """Return the names of what the processor can do; empty where Linux does not tell."""
    return set((cpuinfo("flags") or cpuinfo("Features")).split())


def cpu_bf16() -> bool:
    """Return whether the processor multiplies bfloat16 numbers itself."""
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & features())


def integer_instructions() -> bool:
    """Return whether networks run in 8 bit integers here, by instructions that multiply and add them up.

    On ARM they do not: OpenVINO computes quantized convolutions in floating point there.
    """
    return bool({"avx512_vnni", "avx_vnni", "amx_int8"} & features())


def eager_runs() -> bool:
    """Return whether PyTorch's convolutions run here: on ARM before v8.2 they are an illegal instruction."""
    known = features()
    return not is_arm() or not known or {"atomics", "asimddp"} <= known


def processor_name() -> str:
    """Return the name of the processor, or of the board or core on ARM, where Linux does not name the processor."""
    if name := cpuinfo("model name"):
        return name
    try:
        board = Path(DEVICE_TREE_MODEL).read_text(encoding="utf-8", errors="replace").strip("\0 \n")
    except OSError:
        board = ""
    part = cpuinfo("CPU part").lower()
    core = ARM_CORES.get(part, f"core {part}" if part else "") if cpuinfo("CPU implementer") == ARM else ""
    return f"{board} ({core})" if board and core else board or core or platform.machine()


def cpuinfo(name: str) -> str:
    """Read an entry of the first processor in Linux's list; empty where there is none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == name), "")
    except OSError:
        return ""
