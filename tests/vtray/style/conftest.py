import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """As in the engine by default; what is this small gains nothing from more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
