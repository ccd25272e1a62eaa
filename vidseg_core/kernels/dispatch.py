"""Choose an operation's implementation by the type of device that its tensors are on.

Each operation has a reference in plain torch. A device type without an implementation of its own takes the reference;
that is by design, so an engine runs wherever torch does. Register an implementation to replace it:

    @WARP.register("cuda")
    def _warp_on_cuda(values, flow, align_corners, padding): ...

The conformance tests compare every registered implementation with the reference.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable
from functools import cache
from typing import Any

log = logging.getLogger(__name__)

Implementation = Callable[..., Any]

OPERATIONS: dict[str, Operation] = {}
"""Every operation by its name."""

PROVIDERS = {"cuda": ("vidseg_core.kernels.triton", "triton")}
"""By device type: the package whose import registers implementations, and the library that it needs."""


class Operation:
    """Hold the implementations of one operation.

    Args:
        name: unique among operations.
        reference: its plain torch implementation, correct on every device.

    Raises:
        ValueError: there is an operation of that name.
    """

    def __init__(self, name: str, reference: Implementation):
        if name in OPERATIONS:
            raise ValueError(f"operation: expected a new name, got {name!r} again")
        self.name = name
        self.reference = reference
        self.implementations: dict[str, Implementation] = {}
        OPERATIONS[name] = self

    def register(self, device_type: str) -> Callable[[Implementation], Implementation]:
        """Decorate the implementation for a device type, such as "cpu" or "cuda".

        Raises:
            ValueError: the device type has an implementation.
        """
        if device_type in self.implementations:
            raise ValueError(f"{self.name}: expected one implementation for {device_type!r}, got another")

        def keep(implementation: Implementation) -> Implementation:
            self.implementations[device_type] = implementation
            return implementation

        return keep

    def on(self, device_type: str) -> Implementation:
        """Return the implementation for a device type, or the reference where it has none."""
        provide(device_type)
        return self.implementations.get(device_type, self.reference)

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
