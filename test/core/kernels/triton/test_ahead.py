"""All Triton kernels compile without a card; `make test-triton` runs this with the oldest and the newest Triton."""

import importlib
import os
import pkgutil
from dataclasses import replace

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

from vidseg_core.kernels import triton as kernels
from vidseg_core.kernels.triton.ahead import CASES, compiled, cost


@pytest.mark.parametrize("capability", [87, 90])
@pytest.mark.parametrize("name", CASES)
def test_kernels_compile_without_spills(name, capability):
    found = cost(compiled(CASES[name], capability))
    assert found.stack == 0
    assert 0 < found.registers <= 255 and found.instructions > 50
    assert found.shared <= 48 * 1024


@pytest.mark.parametrize("one", ["column", "plane", "distance"])
def test_numbers_that_are_one_become_constants(one):
    """As the launcher has it: a stride of planes or of channels last, or neighbours side by side."""
    cases = [case for case in CASES.values() if one in case.kernel.arg_names and one not in case.constants]
    assert cases
    for case in cases:
        found = cost(compiled(replace(case, constants={**case.constants, one: 1}), 90))
        assert found.stack == 0 and found.instructions > 50


def test_every_kernel_has_a_case():
    modules = [importlib.import_module(m.name) for m in pkgutil.iter_modules(kernels.__path__, f"{kernels.__name__}.")]
    there = {value for module in modules for name, value in vars(module).items() if name.endswith("_kernel")}
    assert {case.kernel for case in CASES.values()} == there
