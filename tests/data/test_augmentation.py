import pytest
import torch

from ldm.data.augmentation import Augmentation
from ldm.data.labels import UNLABELLED


def pairs(size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures whose red is the label / 10, in large squares."""
    torch.manual_seed(0)
    labels = torch.randint(0, 10, (6, 4, 4)).repeat_interleave(size // 4, 1).repeat_interleave(size // 4, 2)
    return (labels / 10)[:, None].repeat(1, 3, 1, 1), labels.to(torch.uint8)


def test_without_changes_the_pair_stays() -> None:
    image, labels = pairs()
    moved, same = Augmentation()(image, labels)
    torch.testing.assert_close(moved, image, atol=1e-5, rtol=0)
    assert torch.equal(same, labels)


def test_picture_and_labels_move_together_and_each_pair_differently() -> None:
    image, labels = pairs()
    moved, turned = Augmentation(degrees=30, scale=1.3, shift=0.2)(image, labels)
    inside = turned != UNLABELLED
    agrees = ((moved[:, 0] * 10 - turned).abs() < 0.05) & inside
    assert agrees.sum() > 0.7 * inside.sum()  # all but the pixels between two squares
    assert 0.01 < (~inside).float().mean() < 0.5  # what came in from outside
    assert len({tuple(one.flatten().tolist()) for one in inside}) == len(labels)
    assert turned.dtype == labels.dtype and set(turned.unique().tolist()) <= {*range(10), UNLABELLED}


def test_colours_change_and_stay_in_range() -> None:
    torch.manual_seed(0)
    image = torch.rand(8, 3, 16, 16) * 2 - 1
    changed, _ = Augmentation(colour=0.5)(image, torch.zeros(8, 16, 16, dtype=torch.uint8))
    assert changed.min() >= -1 and changed.max() <= 1
    assert (changed - image).abs().mean((1, 2, 3)).min() > 0.01


def test_impossible_changes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"scale 0\.5"):
        Augmentation(scale=0.5)
