import math

import pytest
import torch

from ldm.metrics.overlap import confusion, overlap


def test_iou_of_permuted_regions() -> None:
    # 4 pixels of region 0, 2 of 1, 2 of 2; the prediction swaps 1 and 2.
    truth = torch.tensor([[0, 0, 0, 0], [1, 1, 2, 2]], dtype=torch.uint8)
    found = torch.tensor([[0, 0, 0, 0], [2, 2, 1, 1]], dtype=torch.uint8)
    scores = overlap(confusion(found, truth, 3))
    assert scores.iou == [1.0, 0.0, 0.0]
    assert scores.miou == pytest.approx(1 / 3)
    assert scores.pixel_accuracy == 0.5


def test_iou_of_half_a_region() -> None:
    truth = torch.tensor([0, 0, 1, 1])
    found = torch.tensor([0, 0, 1, 0])
    scores = overlap(confusion(found, truth, 2))
    assert scores.iou == [pytest.approx(2 / 3), 0.5]


def test_confusion_matrices_add_up() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, found = (torch.randint(0, 5, (6, 8, 8), generator=generator) for _ in range(2))
    together = confusion(found, truth, 5)
    one_by_one = sum(confusion(f, t, 5) for f, t in zip(found, truth, strict=True))
    assert torch.equal(together, one_by_one)
    for region in range(5):
        both = ((found == region) & (truth == region)).sum()
        either = ((found == region) | (truth == region)).sum()
        assert overlap(together).iou[region] == pytest.approx(float(both / either))


def test_unlabeled_truth_is_ignored_and_unlabeled_predictions_are_wrong() -> None:
    truth = torch.tensor([0, 0, 1, 255], dtype=torch.uint8)
    found = torch.tensor([0, 255, 1, 1], dtype=torch.uint8)
    scores = overlap(confusion(found, truth, 2))
    assert scores.iou == [0.5, 1.0]
    assert scores.pixel_accuracy == pytest.approx(2 / 3)


def test_absent_regions_are_nan_and_left_out_of_the_mean() -> None:
    truth, found = torch.tensor([0, 0, 0, 0]), torch.tensor([0, 0, 0, 1])
    scores = overlap(confusion(found, truth, 3))
    assert scores.iou[1] == 0 and math.isnan(scores.iou[2])
    assert scores.miou == 0.75


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="same shape"):
        confusion(torch.zeros(4, 4), torch.zeros(4, 5), 2)


def test_unknown_true_labels_are_named() -> None:
    with pytest.raises(ValueError, match=r"true labels must be in \[0, 2\] or 255, got \[0, 3, 255\]"):
        confusion(torch.zeros(3, dtype=torch.uint8), torch.tensor([0, 3, 255], dtype=torch.uint8), 3)
