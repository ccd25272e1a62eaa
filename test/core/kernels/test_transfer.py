import subprocess
import sys

import numpy as np
import torch

from vidseg_core.kernels.transfer import download

ARRAYS = """
import sys
import numpy as np
from vidseg_core.kernels.transfer import download

one, other = np.zeros((2, 3), np.uint8), np.zeros(4, np.float32)
got = download(one, other)
print(got[0] is one, got[1] is other, "torch" in sys.modules)
"""


def test_what_is_on_the_processor_is_downloaded_as_it_is():
    whole, part = torch.arange(12, dtype=torch.uint8).view(3, 4), torch.arange(6.0).view(2, 3).T
    for array, tensor in zip(download(whole, part), (whole, part), strict=True):
        np.testing.assert_array_equal(array, tensor)
        assert array.ctypes.data == tensor.data_ptr()


def test_arrays_are_downloaded_without_pytorch():
    done = subprocess.run([sys.executable, "-c", ARRAYS], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "True", "False"]
