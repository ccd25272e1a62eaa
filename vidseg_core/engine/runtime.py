"""How a network is executed: by PyTorch as it stands (eager), or compiled for this processor by OpenVINO.

OpenVINO computes in bfloat16 where the processor does, else in float32; and convolutions in 8 bit integers where the
processor has instructions for that and it is known what values they meet, see `quantize.py`. Where it is not installed,
PyTorch in bfloat16 takes its place on a processor that has that. It compiles for fixed shapes, when tensors of these
shapes come for the first time, and keeps what it compiled in `cache_directory()` for the next process.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from vidseg_core import networks
from vidseg_core.engine.cpu import cpu_bf16, integer_instructions
from vidseg_core.engine.quantize import Ranges, quantize
from vidseg_core.errors import ConfigError

if TYPE_CHECKING:
    import openvino

Outputs = Tensor | tuple[Tensor, ...]

TRIAL_ROUNDS = (3, 20)  # at least and at most; as many as fit into
TRIAL_S = 0.5
CLEARLY = 1.1  # a measured advantage below this is no reason for rounding otherwise than PyTorch does
MOST_CACHED = 24
MOST_SHAPES = 8

log = logging.getLogger(__name__)


class Runtime:
    """Makes executors.

    Args:
        choice: auto, eager, openvino or openvino_int8. auto tries eager against the fastest that is there on the first
            tensors of each network, and takes the faster one; openvino does not use integers, openvino_int8 does so
            whatever the processor, where a network's activation ranges are known.
        device: where the networks are. OpenVINO is for the CPU.
        num_threads: of the CPU, 1 or more.

    Attributes:
        needs_ranges: whether integers were asked for by name, which not every file of weights allows.

    Raises:
        ConfigError: openvino is asked for by name, and is not installed or the device is not the CPU.
    """

    def __init__(self, choice: str, device: torch.device, num_threads: int):
        problem, other = None, "openvino"
        if device.type != "cpu":
            problem, other = f"OpenVINO is for the CPU, the device is {device}", "eager"
        elif choice != "eager" and (reason := _import_problem()):
            problem = f"OpenVINO cannot be imported ({reason}); `pip install openvino` installs it"
            other = "eager bf16" if cpu_bf16() else "eager"
        if problem is not None and choice.startswith("openvino"):
            raise ConfigError(f"runtime: expected auto or eager, got {choice!r}: {problem}")
        if problem is not None and choice == "auto":
            log.info("runtime: %s; %s", "eager" if other == "eager" else "eager or eager bf16", problem)
        self._candidates = ("eager", other) if choice == "auto" else (choice,)
        self.needs_ranges = choice == "openvino_int8"
        self._integers = self.needs_ranges or (choice == "auto" and integer_instructions())
        self._num_threads = num_threads

    def executor(self, network: nn.Module, name: str, ranges: Ranges | None = None) -> Executor:
        """What calls `network`.

        Args:
            network: in evaluation mode, float32; takes and gives tensors of four dimensions, one or a tuple of them.
            name: what to call it in messages.
            ranges: what values its convolutions meet; None where that is not known.
        """
        return Executor(network, name, self._candidates, self._num_threads, ranges if self._integers else None)


class Executor:
    """A network that can be called, from several threads at once. What it returns, nobody else writes to.

    Attributes:
        network: the module itself.
        runtime: what executes it: "eager", "eager bf16", "openvino bf16", "openvino f32", "openvino int8 bf16" or
            "openvino int8 f32", the latter for everything but convolutions; None while nothing is chosen yet.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        candidates: tuple[str, ...],
        num_threads: int,
        ranges: Ranges | None = None,
    ):
        self.network = network
        self.runtime: str | None = "eager" if set(candidates) == {"eager"} else None
        self._name = name
        self._candidates = candidates
        self._num_threads = num_threads
        self._ranges = ranges
        self._lock = threading.Lock()
        self._compiled: dict[tuple, Compiled] = {}
        self._rounded: Rounded | None = None

    def __call__(self, *inputs: Tensor) -> Outputs:
        """`network(*inputs)`, each B x C x h x w, float32."""
        if self.runtime is None:
            self._choose(inputs)
        return self.network(*inputs) if self.runtime == "eager" else self._other_for(inputs)(*inputs)

    def _choose(self, inputs: tuple[Tensor, ...]) -> None:
        other = self._other_for(inputs)
        with self._lock:
            if self.runtime is not None:
                return
            if len(self._candidates) == 1:
                log.info("runtime of the %s: %s, as asked for", self._name, other.runtime)
                self.runtime = other.runtime
                return
            eager_s, other_s = _trial(lambda: self.network(*inputs), lambda: other(*inputs))
            runtime = other.runtime if other_s * CLEARLY < eager_s else "eager"
            shapes = ", ".join(" x ".join(map(str, x.shape)) for x in inputs)
            times = f"eager took {eager_s * 1e3:.1f} ms, {other.runtime} {other_s * 1e3:.1f} ms ({shapes})"
            log.info("runtime of the %s: %s; %s", self._name, runtime, times)
            self.runtime = runtime
            if runtime == "eager":
                self._compiled, self._rounded = {}, None

    def _other_for(self, inputs: tuple[Tensor, ...]) -> Compiled | Rounded:
        """What executes it if PyTorch in float32 does not."""
        if self._candidates[-1].startswith("openvino"):
            return self._compiled_for(inputs)
        with self._lock:
            if self._rounded is None:
                self._rounded = Rounded(self.network)
            return self._rounded

    def _compiled_for(self, inputs: tuple[Tensor, ...]) -> Compiled:
        shapes = tuple(tuple(x.shape) for x in inputs)
        compiled = self._compiled.get(shapes)
        if compiled is None:
            with self._lock:
                compiled = self._compiled.get(shapes)
                if compiled is None:
                    compiled = Compiled(self.network, inputs, self._num_threads, self._ranges)
                    if len(self._compiled) >= MOST_SHAPES:
                        self._compiled.pop(next(iter(self._compiled)))
                    self._compiled[shapes] = compiled
        return compiled


class Compiled:
    """A network, compiled by OpenVINO for the shapes of `inputs`.

    Its inputs and outputs lie channels last in memory, as the engine's other parts have and want them.
    """

    def __init__(self, network: nn.Module, inputs: tuple[Tensor, ...], num_threads: int, ranges: Ranges | None = None):
        core = _core()
        precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": num_threads,
            # A thread that is tied to a processor cannot give way to a camera's frame that is worked on there.
            "ENABLE_CPU_PINNING": False,
        }
        self.runtime = f"openvino {precision}" if ranges is None else f"openvino int8 {precision}"
        self._model = _load(core, network, inputs, options, ranges)
        self._shapes = [tuple(output.shape) for output in self._model.outputs]
        self._idle: list[openvino.InferRequest] = []

    def __call__(self, *inputs: Tensor) -> Outputs:
        from openvino import Tensor as View

        try:
            request = self._idle.pop()
        except IndexError:
            request = self._model.create_infer_request()
        # Both have to live until `infer` is through.
        given = [x.permute(0, 2, 3, 1).contiguous().numpy() for x in inputs]
        outputs = [np.empty(shape, dtype=np.float32) for shape in self._shapes]
        for k, x in enumerate(given):
            request.set_input_tensor(k, View(x, shared_memory=True))
        for k, y in enumerate(outputs):
            request.set_output_tensor(k, View(y, shared_memory=True))
        request.infer()
        self._idle.append(request)
        results = tuple(torch.from_numpy(y).permute(0, 3, 1, 2) for y in outputs)
        return results[0] if len(results) == 1 else results


class Rounded:
    """A network in bfloat16, executed by PyTorch."""

    runtime = "eager bf16"

    def __init__(self, network: nn.Module):
        self._network = deepcopy(network).to(torch.bfloat16)

    def __call__(self, *inputs: Tensor) -> Outputs:
        outputs = self._network(*(x.to(torch.bfloat16) for x in inputs))
        return outputs.float() if isinstance(outputs, Tensor) else tuple(y.float() for y in outputs)


class _ChannelsLast(nn.Module):
    """A network whose inputs and outputs are B x h x w x C."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(*(x.permute(0, 3, 1, 2) for x in inputs))
        return tuple(y.permute(0, 2, 3, 1) for y in (outputs if isinstance(outputs, tuple) else (outputs,)))


def cache_directory() -> Path:
    """Where compiled networks are kept: `$XDG_CACHE_HOME/vidseg/openvino`, by default below `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vidseg" / "openvino"


def _load(
    core: openvino.Core, network: nn.Module, inputs: tuple[Tensor, ...], options: dict, ranges: Ranges | None
) -> openvino.CompiledModel:
    """From the cache, or else compiled and put there."""
    path = cache_directory() / f"{_key(core, network, inputs, options, ranges)}.blob"
    if path.is_file():
        try:
            model = core.import_model(path.read_bytes(), "CPU", options)
            os.utime(path)  # the longest unused one goes first
        except (OSError, RuntimeError) as error:
            log.warning("%s: cannot be used, compiled anew: %s", path, " ".join(str(error).split()))
        else:
            return model
    model = _convert(network, inputs)
    if ranges is not None:
        quantize(model, ranges)
    model = core.compile_model(model, "CPU", options)
    blob = io.BytesIO()
    model.export_model(blob)
    try:
        _store(path, blob.getbuffer())
    except OSError as error:
        log.warning("%s: not kept for the next process: %s", path, error.strerror)
    return model


def _convert(network: nn.Module, inputs: tuple[Tensor, ...]) -> openvino.Model:
    """With the frontend itself: `openvino.convert_model` reports its use over the network, which no vehicle wants."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    examples = tuple(torch.zeros(x.shape).permute(0, 2, 3, 1).contiguous() for x in inputs)
    with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
        warnings.simplefilter("ignore")  # sizes become constants, as they shall
        traced = torch.jit.trace(_ChannelsLast(network).eval(), examples, check_trace=False)
        frontend = FrontEndManager().load_by_framework("pytorch")
        decoder = TorchScriptPythonDecoder(traced, example_input=examples)  # the frontend keeps no reference to it
        model = frontend.convert(frontend.load(decoder))
    model.reshape({k: list(example.shape) for k, example in enumerate(examples)})
    return model


def _key(
    core: openvino.Core, network: nn.Module, inputs: tuple[Tensor, ...], options: dict, ranges: Ranges | None
) -> str:
    """Differs when anything does that the compiled network depends on."""
    import openvino

    key = hashlib.sha256()
    for value in (
        openvino.__version__,
        torch.__version__,
        core.get_property("CPU", "FULL_DEVICE_NAME"),
        core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
        sorted(options.items()),
        ranges,
        [tuple(x.shape) for x in inputs],
        type(network).__qualname__,
        _source_digest(),
    ):
        key.update(repr(value).encode())
    for name, value in sorted(network.state_dict().items()):
        key.update(name.encode())
        key.update(value.contiguous().numpy().tobytes())
    return key.hexdigest()[:40]


@cache
def _source_digest() -> str:
    """Of the code that says what networks compute."""
    files = [Path(__file__), Path(quantize.__code__.co_filename), *sorted(Path(networks.__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _store(path: Path, blob: bytes | memoryview) -> None:
    """Write a file that is whole or not there, and remove the longest unused ones where there are many."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(blob)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    by_use = sorted(path.parent.glob("*.blob"), key=lambda file: file.stat().st_mtime)
    for old in by_use[:-MOST_CACHED]:
        old.unlink(missing_ok=True)


def _trial(*candidates: Callable[[], object]) -> list[float]:
    """Seconds that each takes at best, in turn, after one call that is not counted.

    A short call is repeated more often: what else the machine does disturbs it more.
    """
    best = [float("inf")] * len(candidates)
    end = time.perf_counter() + TRIAL_S
    for number in range(TRIAL_ROUNDS[1]):
        if number >= TRIAL_ROUNDS[0] and time.perf_counter() > end:
            break
        for which, candidate in enumerate(candidates):
            begin = time.perf_counter()
            candidate()
            if number:
                best[which] = min(best[which], time.perf_counter() - begin)
    return best


@cache
def _core() -> openvino.Core:
    import openvino

    return openvino.Core()


def _import_problem() -> str | None:
    try:
        import openvino  # noqa: F401
    except ImportError as error:
        return str(error)
    return None
