import pytest
import torch


@pytest.fixture(scope="module")
def one_thread():
    """PyTorch computes in one thread: small networks are no faster in several, and results are the same every time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
