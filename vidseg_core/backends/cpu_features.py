"""Features of the processor, as Linux tells them."""

from __future__ import annotations


def cpu_bf16() -> bool:
    """Return whether the processor multiplies bfloat16 numbers itself."""
    return bool({"avx512_bf16", "amx_bf16"} & set(cpuinfo("flags").split()))


def integer_instructions() -> bool:
    """Return whether the processor multiplies 8 bit integers and adds them up in one instruction."""
    return bool({"avx512_vnni", "avx_vnni", "amx_int8"} & set(cpuinfo("flags").split()))


def cpuinfo(name: str) -> str:
    """Read an entry of the first processor in Linux's list; empty where there is none."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next((line.partition(":")[2].strip() for line in lines if line.split(":")[0].strip() == name), "")
    except OSError:
        return ""
