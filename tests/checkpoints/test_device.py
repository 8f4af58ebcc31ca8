import pytest
import torch

from ldm.checkpoints.device import usable_device


def test_available_devices() -> None:
    assert usable_device("cpu") == usable_device(torch.device("cpu")) == torch.device("cpu")
    torch.empty(1, device=usable_device()).sum().item()


@pytest.mark.parametrize(
    "device", ["meta", "mps", "cuda:99", "xla", "abc", "", "5", "cpu:-1", "cuda:" + "9" * 400]
)
def test_others_are_one_sentence(device: str) -> None:
    if device == "mps" and torch.backends.mps.is_available():
        pytest.skip("MPS is available")
    with pytest.raises(ValueError, match=r"available here \(cpu") as caught:
        usable_device(device)
    message = str(caught.value)
    assert len(message) < 150 and "\n" not in message and repr(device[:40]) in message
