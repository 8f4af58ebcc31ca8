import pytest
import torch

from ldm.data.datasets.concatenated import Concatenated
from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.targets import ConfigError

TARGET = "ldm.data.synthetic.dataset.SyntheticFaces"


def config(length: int, seed: int) -> dict[str, object]:
    return {"target": TARGET, "params": {"size": 16, "length": length, "seed": seed}}


def test_items_are_those_of_the_datasets_in_order() -> None:
    both = Concatenated([config(3, 0), config(2, 7)])
    parts = [SyntheticFaces(16, 3, seed=0), SyntheticFaces(16, 2, seed=7)]
    expected = [part[i] for part in parts for i in range(len(part))]
    assert len(both) == 5
    for index, item in enumerate(expected):
        assert torch.equal(both[index]["image"], item["image"])
    assert torch.equal(both[-1]["labels"], expected[-1]["labels"])
    with pytest.raises(IndexError):
        both[5]


def test_empty_list_is_refused() -> None:
    with pytest.raises(ConfigError, match="datasets is empty"):
        Concatenated([])
