"""A short slice of every kind of malformed input; `make fuzz` runs the whole."""

import pytest

from tests.fuzz.kinds import KINDS, failures


@pytest.mark.parametrize("kind", KINDS)
def test_malformed_inputs_lead_to_one_sentence(kind: str) -> None:
    assert list(failures(kind, KINDS[kind].slice, seed=0)) == []
