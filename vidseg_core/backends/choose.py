"""How a network is executed: by PyTorch as it stands (eager), or compiled for this processor by OpenVINO.

OpenVINO computes in bfloat16 where the processor does, else in float32; and convolutions in 8 bit integers where the
processor has instructions for that and it is known what values they meet, see `integers.py`. Where it is not installed,
PyTorch in bfloat16 takes its place on a processor that has that. It compiles for fixed shapes, when tensors of these
shapes come for the first time, and keeps what it compiled in `cache_directory()` for the next process.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vidseg_core.backends.backend import Outputs
from vidseg_core.backends.cpu_features import cpu_bf16, integer_instructions
from vidseg_core.backends.integers import Ranges
from vidseg_core.backends.openvino import Compiled, import_problem
from vidseg_core.backends.torch_eager import Rounded
from vidseg_core.errors import ConfigError

if TYPE_CHECKING:
    pass

log = logging.getLogger(__name__)
TRIAL_ROUNDS = (3, 20)  # at least and at most; as many as fit into
TRIAL_S = 0.5
CLEARLY = 1.1  # a measured advantage below this is no reason for rounding otherwise than PyTorch does
MOST_SHAPES = 8


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
        elif choice != "eager" and (reason := import_problem()):
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
