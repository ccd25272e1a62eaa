import re
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from vidseg_core.allocator import give_back_code

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is looked at in /proc")
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ (\S+) .*?(\S*)$")


def kilobytes_of_code(library):
    """Memory of this process that holds code of a library."""
    found, is_code = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if mapping := _MAPPING.match(line):
            is_code = mapping[1] == "r-xp" and library in mapping[2]
        elif is_code and line.startswith("Rss:"):
            found += int(line.split()[1])
    return found


def compiled():
    @numba.njit
    def double(values):
        return 2 * values

    return double(np.arange(3.0))


def test_code_is_given_back_and_can_be_executed_again():
    np.testing.assert_array_equal(compiled(), [0, 2, 4])
    before, others = kilobytes_of_code("llvmlite"), kilobytes_of_code("_multiarray_umath")
    give_back_code("libllvmlite|libLLVM")
    assert before > 10_000 and kilobytes_of_code("llvmlite") == 0
    assert kilobytes_of_code("_multiarray_umath") >= 0.5 * others > 0, "libraries that were not named keep theirs"
    np.testing.assert_array_equal(compiled(), [0, 2, 4])
    assert kilobytes_of_code("llvmlite") > 1_000
    give_back_code("libllvmlite|libLLVM")
    assert kilobytes_of_code("llvmlite") == 0


def test_a_library_that_is_not_loaded():
    before = kilobytes_of_code("llvmlite")
    give_back_code("no-such-library")
    assert kilobytes_of_code("llvmlite") == before
