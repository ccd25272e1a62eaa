"""Choose an operation's implementation by the type of device that its arguments are on.

Each operation has a reference in plain torch, which is loaded when it is first needed. A device type without an
implementation of its own takes the reference; that is by design, so an engine runs wherever torch does. Register an
implementation to replace it:

    @WARP.register("cuda")
    def _warp_on_cuda(values, flow, align_corners, padding): ...

Implementations for the CPU take and give arrays. Given the processor's tensors, an operation gives tensors, whatever
computes it; given arrays alone, arrays.

The conformance tests compare every registered implementation with the reference.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from functools import cache, cached_property
from typing import Any

from vidseg_core.arrays import takes_arrays, takes_tensors

log = logging.getLogger(__name__)

Implementation = Callable[..., Any]

OPERATIONS: dict[str, Operation] = {}
"""Every operation by its name."""

REFERENCES = "vidseg_core.kernels.reference"

PROVIDERS = {"cuda": ("vidseg_core.kernels.triton", "triton")}
"""By device type: the package whose import registers implementations, and the library that it needs."""


class Operation:
    """Hold the implementations of one operation.

    Args:
        name: unique among operations.
        reference: where its plain torch implementation is, which is correct on every device: `module.function` in
            `vidseg_core.kernels.reference`.
        for_host: its results are the host's whatever it is given: never made into tensors.

    Raises:
        ValueError: there is an operation of that name.
    """

    def __init__(self, name: str, reference: str, for_host: bool = False):
        if name in OPERATIONS:
            raise ValueError(f"operation: expected a new name, got {name!r} again")
        self.name = name
        self._place = reference
        self.for_host = for_host
        self.implementations: dict[str, Implementation] = {}
        OPERATIONS[name] = self

    @cached_property
    def reference(self) -> Implementation:
        """Its plain torch implementation, for tensors."""
        module, function = self._place.rsplit(".", 1)
        return getattr(importlib.import_module(f"{REFERENCES}.{module}"), function)

    @cached_property
    def _reference_for_all(self) -> Implementation:
        return takes_tensors(self.reference, self.for_host)

    def register(self, device_type: str) -> Callable[[Implementation], Implementation]:
        """Decorate the implementation for a device type, such as "cpu" or "cuda".

        Raises:
            ValueError: the device type has an implementation.
        """
        if device_type in self.implementations:
            raise ValueError(f"{self.name}: expected one implementation for {device_type!r}, got another")

        def keep(implementation: Implementation) -> Implementation:
            takes_all = takes_arrays(implementation, self.for_host) if device_type == "cpu" else implementation
            self.implementations[device_type] = takes_all
            return implementation

        return keep

    def on(self, device_type: str) -> Implementation:
        """Return the implementation for a device type, or the reference where it has none."""
        provide(device_type)
        return self.implementations.get(device_type) or self._reference_for_all

    def has_own(self, device_type: str) -> bool:
        """Return whether a device type has an implementation other than the reference."""
        provide(device_type)
        return device_type in self.implementations


@cache
def provide(device_type: str) -> bool:
    """Import the implementations for a device type, once; return whether there are any to import."""
    if device_type not in PROVIDERS:
        return False
    package, library = PROVIDERS[device_type]
    if importlib.util.find_spec(library) is None:
        log.warning("%s is not installed: on %s, plain PyTorch computes all operations", library, device_type)
        return False
    importlib.import_module(package)
    return True
