import os
import platform
import subprocess
import sys
from importlib.metadata import distributions

import pytest

from vidseg_core.backends import cpu_features
from vidseg_core.backends.cpu_features import cpu_bf16, cpuinfo, eager_runs, integer_instructions, processor_name

CORTEX_A72 = {"Features": "fp asimd evtstrm crc32 cpuid", "CPU implementer": "0x41", "CPU part": "0xd08"}
ORIN = {
    "Features": "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
    "CPU implementer": "0x41",
    "CPU part": "0xd42",
}
GRAVITON3 = {"Features": ORIN["Features"] + " sve svei8mm bf16 i8mm", "CPU implementer": "0x41", "CPU part": "0xd40"}


@pytest.mark.skipif(platform.machine() != "x86_64", reason="what x86 says")
def test_what_the_processor_can_do_is_what_linux_says():
    flags = set(open("/proc/cpuinfo").read().split())
    assert cpu_bf16() == bool(flags & {"avx512_bf16", "amx_bf16"})
    assert integer_instructions() == bool(flags & {"avx512_vnni", "avx_vnni", "amx_int8"})
    assert eager_runs() and processor_name() == cpuinfo("model name")


def test_entries_of_the_first_processor():
    assert cpuinfo("processor") == "0"
    assert cpuinfo("nothing of the kind") == ""


@pytest.mark.parametrize(
    "entries, model, expected",
    [
        (CORTEX_A72, "Raspberry Pi 4 Model B Rev 1.4\0", (False, False, "Raspberry Pi 4 Model B Rev 1.4 (Cortex-A72)")),
        (ORIN, "NVIDIA Jetson AGX Orin\0", (False, True, "NVIDIA Jetson AGX Orin (Cortex-A78AE)")),
        (GRAVITON3, None, (True, True, "Neoverse-V1")),
        ({"CPU implementer": "0x48", "CPU part": "0xd01"}, None, (False, True, "aarch64")),
    ],
)
def test_arm_is_read_by_its_own_names(entries, model, expected, monkeypatch, tmp_path):
    tree = tmp_path / "model"
    if model is not None:
        tree.write_text(model, encoding="utf-8")
    monkeypatch.setattr(cpu_features, "DEVICE_TREE_MODEL", str(tree))
    monkeypatch.setattr(cpu_features.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(cpu_features, "cpuinfo", lambda name: entries.get(name, ""))
    assert (cpu_bf16(), eager_runs(), processor_name()) == expected
    assert not integer_instructions()


WATCHED = """
import sys
started = []
def watch(event, arguments):
    if event in ("os.fork", "os.forkpty", "os.posix_spawn", "subprocess.Popen", "socket.connect"):
        started.append(event)
sys.addaudithook(watch)
"""


def test_importing_openvino_starts_no_process_that_reports_it(tmp_path):
    # As the library comes, whether it forks one depends on the machine (it spares CI): its absence alone proves little.
    if not {"openvino", "openvino-telemetry"} <= {one.name for one in distributions()}:
        pytest.skip("needs OpenVINO and its telemetry")
    shown = "started, sys.modules['openvino_telemetry']"
    code = f"{WATCHED}import vidseg_core.backends, openvino, time\ntime.sleep(0.5)\nprint({shown})\n"
    run = [sys.executable, "-c", code]
    done = subprocess.run(
        run, capture_output=True, text=True, check=True, env=os.environ | {"HOME": str(tmp_path)}, timeout=120
    )
    assert done.stdout.strip() == "[] None", done.stderr
    assert not list(tmp_path.iterdir())  # no identifier of this user either
