"""Exponential moving averages of parameters."""

import pytest
from torch import nn

from ldm.modules.ema import EMA


def test_parameters_that_differ_only_in_dots_are_refused() -> None:
    module = nn.ModuleDict(
        {"a": nn.ModuleDict({"bc": nn.Linear(1, 1)}), "ab": nn.ModuleDict({"c": nn.Linear(1, 1)})}
    )
    with pytest.raises(ValueError, match="two named abcweight"):
        EMA(module)
