"""The choice of what executes a network: the backend that was asked for by name, or the winner of a short trial.

`auto` tries PyTorch as it stands (eager) against the first backend of `PREFERENCE` that is available, on the first
tensors of each network, and takes the faster one. On a CPU, eager sees no more than a part of large inputs: where its
time for all of them, by their pixels, leaves no doubt, the seconds for a fair trial are saved.
"""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from vidseg_core.backends import AUTO_ONLY, BACKENDS
from vidseg_core.backends.backend import (
    Backend,
    Compiled,
    Network,
    Outputs,
    Ranges,
    Reloadable,
    is_foreign,
    loaded,
)
from vidseg_core.backends.blob_cache import Choice, choice_key, identity_of, read_trial, store_choice, store_trial
from vidseg_core.backends.compiled_network import openvino_core
from vidseg_core.errors import ConfigError
from vidseg_core.threads import tell_torch

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from vidseg_core.devices import Device
    from vidseg_core.networks.graph import Foreign

log = logging.getLogger(__name__)
BASELINE = "eager"
# What `auto` tries against the baseline: the first that can execute the network.
PREFERENCE = ("openvino_int8", "openvino", "eager bf16")
PREFERENCE_ON_CUDA = ("cuda_half_graph", "cuda_half")
TRIAL_ROUNDS = (3, 20)  # at least and at most; as many as fit into
TRIAL_S = 0.5
CLEARLY = 1.1  # a measured advantage below this is no reason for rounding otherwise than PyTorch does
# Inputs of more pixels are tried in part first, and so many times; all of them where the ratio of times is in between.
TRIED_PIXELS, TRIED_MULTIPLE, PART_ROUNDS = 50_000, 32, 3
DOUBT = (0.5, 2.0)
MOST_SHAPES = 8
# The one that takes the other's place where activation ranges are known.
INTEGERS, FLOATING = "openvino_int8", "openvino"


def load_backend(name: str) -> Backend:
    """Load the backend of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in BACKENDS:
        raise ConfigError(f"runtime: expected one of auto, {', '.join(BACKENDS)}, got {name!r}")
    module, kind = BACKENDS[name]
    return getattr(importlib.import_module(f"{__package__}.{module}"), kind)()


class Runtime:
    """Makes executors. PyTorch is loaded by them, or by a backend that is asked for by name and needs it.

    Args:
        choice: auto, or the name of a backend; see `EngineConfig.runtime`.
        device: where the networks are.
        num_threads: of the CPU, 1 or more.

    Attributes:
        needs_ranges: integers were asked for by name, which needs a segmentation network's activation ranges.

    Raises:
        ConfigError: there is no such backend, or it is not available for the device.
    """

    def __init__(self, choice: str, device: Device | torch.device, num_threads: int):
        self._num_threads = num_threads
        self._device = device
        self._choice = choice
        self._is_auto = choice == "auto"
        self.needs_ranges = not self._is_auto and load_backend(choice).needs_ranges
        if not self._is_auto:
            if reason := self._backends[0].available(device):
                others = [name for name in BACKENDS if name not in AUTO_ONLY and name != choice]
                usable = [name for name in others if load_backend(name).available(device) is None]
                raise ConfigError(f"runtime: expected {' or '.join(['auto', *usable])}, got {choice!r}: {reason}")

    @cached_property
    def _backends(self) -> tuple[Backend, ...]:
        """Those that may be used. Looking for them loads libraries, so an engine without executors does not look."""
        if not self._is_auto:
            return (load_backend(self._choice),)
        found = (load_backend(BASELINE), *_challengers(self._device))
        if len(found) > 1 and not found[0].is_worth_trying():
            log.info("runtime: %s would end the process on this processor, and is not tried", BASELINE)
            return found[1:]
        return found

    def executor(
        self,
        network: Network,
        name: str,
        ranges: Ranges | None = None,
        reload: Callable[[], nn.Module] | None = None,
    ) -> Executor:
        """Make what calls `network`.

        Args:
            network: in evaluation mode, float32; takes and gives tensors of four dimensions, one or a tuple of them.
            name: what to call it in messages.
            ranges: the values that its convolutions meet; None where that is not known.
            reload: see `Executor`.

        Raises:
            ConfigError: the backend that was asked for, or everything that is here, cannot execute such a network.
        """
        backends = self.backends_for(network, name, ranges)
        return Executor(network, name, backends, self._num_threads, ranges, reload, self._choice)

    def backends_for(self, network: Network, name: str, ranges: Ranges | None = None) -> tuple[Backend, ...]:
        """Return the backends that may execute `network`; takes and raises what `executor` does."""
        backends = tuple(one for one in self._backends if one.executes(network))
        if self._is_auto and is_foreign(network):
            backends = self._foreign_backends(network, name, ranges)
        elif not backends:
            wanted = self._backends[0].name
            raise ConfigError(f"runtime: {wanted} cannot execute the {name}, which is in {_form_of(network)}")
        elif is_foreign(network) and backends[0].name in network.problems:
            raise ConfigError(f"runtime: the {name} cannot be executed by {network.problems[backends[0].name]}")
        elif self._is_auto:
            usable = [one for one in backends if ranges is not None or not one.needs_ranges]
            baseline = [one for one in usable if one.name == BASELINE]
            backends = (*baseline, *[one for one in usable if one.name != BASELINE][:1])
        return backends

    def _foreign_backends(self, network: Foreign, name: str, ranges: Ranges | None) -> tuple[Backend, ...]:
        problems = dict(network.problems)
        on_cuda = self._device.type == "cuda" and network.executors_on_cuda
        executors = network.executors_on_cuda if on_cuda else network.executors
        for each in executors:
            if each not in problems and (problem := load_backend(each).available(self._device)):
                problems[each] = problem
        found = tuple(load_backend(each) for each in executors if each not in problems)
        integers = load_backend(INTEGERS)
        if ranges is not None and integers.executes(network) and integers.is_worth_trying():
            found = tuple(integers if one.name == FLOATING else one for one in found)
        if not found:
            raise ConfigError(f"runtime: nothing executes the {name}, {network.form}: {'; '.join(problems.values())}")
        if problems:
            log.info("runtime of the %s: %s; %s", name, found[0].name, "; ".join(problems.values()))
        return found


def _form_of(network: Network) -> str:
    return network.form if is_foreign(network) else "no ONNX file"


def _challengers(device: Device | torch.device) -> tuple[Backend, ...]:
    """The backends that `auto` may try, best first. Logs why others than the usual ones are left."""
    preferred = [load_backend(name) for name in (PREFERENCE_ON_CUDA if device.type == "cuda" else PREFERENCE)]
    reasons = [reason for one in preferred if (reason := one.available(device))]
    found = tuple(one for one in preferred if one.available(device) is None and one.is_worth_trying())
    if preferred[0].available(device):
        log.info("runtime: %s; %s", " or ".join([BASELINE, *(one.name for one in found)]), reasons[0])
    return found


class Executor:
    """A network that can be called, from several threads at once. What it returns, nobody else writes to.

    It is called in PyTorch's inference mode.

    Args:
        network: see `Runtime.executor`.
        name: what to call it in messages.
        backends: one; or the baseline and one that has to be clearly faster to be taken.
        num_threads: of the CPU, 1 or more.
        ranges: activation ranges; used by backends that need them.
        reload: makes the network anew. Where it is given, a network whose compiled form is used is not kept beside it.
        choice: what was asked for, see `Runtime`.

    Attributes:
        runtime: what executes it, as its backend calls it ("eager", "openvino bf16", ...); None while nothing is
            chosen yet.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        backends: tuple[Backend, ...],
        num_threads: int,
        ranges: Ranges | None = None,
        reload: Callable[[], nn.Module] | None = None,
        choice: str = "auto",
    ):
        import torch

        tell_torch()  # perhaps this was the first to load it
        self._inference_mode = torch.inference_mode
        self._choice = choice
        self._network = network
        self._reload = reload
        self.runtime: str | None = None
        self._name = name
        self._backends = backends
        self._num_threads = num_threads
        self._known_ranges = ranges
        self._ranges = ranges if any(backend.needs_ranges for backend in backends) else None
        self._lock = threading.Lock()
        self._chosen: Backend | None = None
        self._compiled: dict[tuple, Compiled] = {}
        if len(backends) == 1 and not backends[0].fixed_shapes:
            self._chosen = backends[0]
            self.runtime = self._compiled_by(self._chosen, ()).runtime

    @property
    def network(self) -> nn.Module:
        """The module itself."""
        return loaded(self._network)

    def __call__(self, *inputs: Tensor) -> Outputs:
        """`network(*inputs)`, each B x C x h x w, float32."""
        with self._inference_mode():
            chosen = self._chosen or self._choose(inputs)
            return self._compiled_by(chosen, inputs)(*inputs)

    def _choose(self, inputs: tuple[Tensor, ...]) -> Backend:
        candidates = [self._compiled_by(backend, inputs) for backend in self._backends]
        with self._lock:
            if self._chosen is not None:
                return self._chosen
            best = candidates[-1]
            if len(candidates) == 1:
                said = f"runtime of the {self._name}: {best.runtime}, as asked for"
            else:
                seconds = self._tried_in_part(candidates, inputs)
                about = "took " if seconds is None else "takes about "
                if seconds is None:
                    seconds = _trial(*(lambda one=one: _finished(one(*inputs)) for one in candidates))
                best = candidates[seconds[1] * CLEARLY < seconds[0]]
                took = [f"{one.runtime} {about * (one is candidates[0])}{s * 1e3:.1f} ms"
                        for one, s in zip(candidates, seconds, strict=True)]  # fmt: skip
                shapes = ", ".join(" x ".join(map(str, x.shape)) for x in inputs)
                said = f"runtime of the {self._name}: {best.runtime}; {', '.join(took)} ({shapes})"
            log.info("%s", said)
            self.runtime = best.runtime
            self._keep(best, inputs, said)
            chosen = self._backends[candidates.index(best)]
            self._compiled = {key: one for key, one in self._compiled.items() if key[0] == chosen.name}
            self._chosen = chosen
            self._let_go()
            return chosen

    def _tried_in_part(self, candidates: list[Compiled], inputs: tuple[Tensor, ...]) -> list[float] | None:
        """Time eager on a part of large inputs, once on this computer; None where that does not tell who is faster."""
        eager, other = self._backends
        sizes = {tuple(x.shape[2:]) for x in inputs}
        is_known = eager.name == BASELINE and other.fixed_shapes
        if inputs[0].device.type != "cpu" or not is_known or len(sizes) > 1:
            return None
        [(height, width)] = sizes
        share = (TRIED_PIXELS / (height * width)) ** 0.5
        if share >= 1:
            return None
        h, w = (max(1, round(side * share / TRIED_MULTIPLE)) * TRIED_MULTIPLE for side in (height, width))
        if h > height or w > width:
            return None
        blob = getattr(candidates[1], "blob", None)
        if blob is not None and (kept := read_trial(blob)) is not None:
            return kept
        import torch

        part = tuple(x[..., :h, :w].contiguous(memory_format=torch.channels_last) for x in inputs)
        try:
            [small_s] = _trial(lambda: candidates[0](*part), most_rounds=PART_ROUNDS)
        except Exception:  # whatever a library raises: networks of others may take one size only, or none below another
            return None
        [other_s] = _trial(lambda: candidates[1](*inputs), most_rounds=PART_ROUNDS)
        whole_s = small_s * height * width / (h * w)
        if DOUBT[0] < other_s / whole_s < DOUBT[1]:
            return None
        if blob is not None:
            store_trial(blob, whole_s, other_s)
        return [whole_s, other_s]

    def _compiled_by(self, backend: Backend, inputs: tuple[Tensor, ...]) -> Compiled:
        """The network as `backend` executes it for `inputs`, compiled when they are the first of their shapes."""
        key = backend.name, *(tuple(x.shape) for x in inputs if backend.fixed_shapes)
        compiled = self._compiled.get(key)
        if compiled is None:
            with self._lock:
                compiled = self._compiled.get(key)
                if compiled is None:
                    compiled = backend.compile(self._network, inputs, self._ranges, self._num_threads)
                    if len(self._compiled) >= MOST_SHAPES:
                        self._compiled.pop(next(iter(self._compiled)))
                    self._compiled[key] = compiled
                    if self._chosen is backend:
                        self._keep(compiled, inputs)
                    self._let_go()
        return compiled

    def _keep(self, compiled: Compiled, inputs: tuple[Tensor, ...], said: str = "") -> None:
        """Keep the choice, for a process that has compiled networks alone."""
        blob = getattr(compiled, "blob", None)
        if blob is not None:
            shapes = [x.shape for x in inputs]
            identity = identity_of(self._network)
            key = choice_key(openvino_core(), identity, shapes, self._known_ranges, self._choice, self._num_threads)
            store_choice(key, Choice(blob.name, compiled.runtime, said))

    def _let_go(self) -> None:
        fixed = self._chosen is not None and self._chosen.fixed_shapes
        if self._reload is not None and fixed and not isinstance(self._network, Reloadable):
            self._network = Reloadable(identity_of(self._network), self._reload)


def _finished(outputs: Outputs) -> None:
    """Wait for what a GPU was asked for."""
    import torch

    first = outputs[0] if isinstance(outputs, tuple) else outputs
    if first.is_cuda:
        torch.cuda.synchronize(first.device)


def _trial(*candidates: Callable[[], object], most_rounds: int = TRIAL_ROUNDS[1]) -> list[float]:
    """Seconds that each takes at best, in turn, after one call that is not counted.

    A short call is repeated more often: what else the machine does disturbs it more.
    """
    best = [float("inf")] * len(candidates)
    end = time.perf_counter() + TRIAL_S
    for number in range(most_rounds):
        if number >= TRIAL_ROUNDS[0] and time.perf_counter() > end:
            break
        for which, candidate in enumerate(candidates):
            begin = time.perf_counter()
            candidate()
            if number:
                best[which] = min(best[which], time.perf_counter() - begin)
    return best
