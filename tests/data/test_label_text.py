"""Text encoding of label maps: round trips and invalid input."""

import pytest
import torch

from ldm.data.label_text import LabelTextError, labels_from_text, labels_to_text
from ldm.data.labels import CELEBAMASK_HQ


def test_encoding_in_row_major_order() -> None:
    labels = torch.tensor([[0, 0, 13], [13, 13, 255]], dtype=torch.uint8)
    assert labels_to_text(labels) == "2x3:2*0,3*13,1*255"
    assert torch.equal(labels_from_text("2x3:2*0,3*13,1*255", CELEBAMASK_HQ, (2, 3)), labels)


def test_round_trip() -> None:
    labels = torch.randint(0, 19, (31, 17), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    decoded = labels_from_text(labels_to_text(labels), CELEBAMASK_HQ, (31, 17))
    assert decoded.dtype == torch.uint8 and torch.equal(decoded, labels)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2x2:4*19", "label 19"),
        ("2x2:5*0", "must fill 4 pixels, got 5"),
        ("2x2:3*0", "must fill 4 pixels, got 3"),
        ("3x2:6*0", "2 x 3 pixels"),
        ("2x2:999999999*0,999999999*0", "got 1999999998"),
        ("2x2:4*-1", "form"),
        ("2x2:4*1.5", "form"),
        ("2x2:", "form"),
        ("", "form"),
        ({"labels": 1}, "form"),
        (None, "form"),
    ],
)
def test_invalid_texts(text, message) -> None:
    with pytest.raises(LabelTextError, match=message):
        labels_from_text(text, CELEBAMASK_HQ, (2, 2))
