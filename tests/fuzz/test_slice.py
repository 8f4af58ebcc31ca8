"""The first cases of each kind of malformed input; `make fuzz` runs thousands."""

import pytest

from tests.fuzz.kinds import KINDS, failures

FEW = {"training configs": 4, "options": 12, "model configs": 12}


@pytest.mark.parametrize("kind", KINDS)
def test_malformed_inputs_are_refused_in_a_sentence(kind: str) -> None:
    assert list(failures(kind, FEW.get(kind, 30))) == []
