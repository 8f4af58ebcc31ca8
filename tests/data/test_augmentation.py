import pytest
import torch

from ldm.data.augmentation import Augmentation
from ldm.data.labels import UNLABELED


def pairs(size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images whose pixel values are label / 10, in large squares."""
    torch.manual_seed(0)
    labels = torch.randint(0, 10, (6, 4, 4)).repeat_interleave(size // 4, 1).repeat_interleave(size // 4, 2)
    return (labels / 10)[:, None].repeat(1, 3, 1, 1), labels.to(torch.uint8)


def test_defaults_change_nothing() -> None:
    image, labels = pairs()
    moved, same = Augmentation()(image, labels)
    torch.testing.assert_close(moved, image, atol=1e-5, rtol=0)
    assert torch.equal(same, labels)


def test_image_and_labels_are_transformed_alike_and_each_pair_differently() -> None:
    image, labels = pairs()
    moved, rotated = Augmentation(degrees=30, scale=1.3, shift=0.2)(image, labels)
    inside = rotated != UNLABELED
    agrees = ((moved[:, 0] * 10 - rotated).abs() < 0.05) & inside
    assert agrees.sum() > 0.7 * inside.sum()  # except pixels between two squares
    assert 0.01 < (~inside).float().mean() < 0.5  # pixels from outside
    assert len({tuple(one.flatten().tolist()) for one in inside}) == len(labels)
    assert rotated.dtype == labels.dtype and set(rotated.unique().tolist()) <= {*range(10), UNLABELED}


def test_color_augmentation_stays_in_range() -> None:
    torch.manual_seed(0)
    image = torch.rand(8, 3, 16, 16) * 2 - 1
    changed, _ = Augmentation(color=0.5)(image, torch.zeros(8, 16, 16, dtype=torch.uint8))
    assert changed.min() >= -1 and changed.max() <= 1
    assert (changed - image).abs().mean((1, 2, 3)).min() > 0.01


def test_invalid_scale() -> None:
    with pytest.raises(ValueError, match=r"scale 0\.5"):
        Augmentation(scale=0.5)


def test_scale_range() -> None:
    torch.manual_seed(0)
    labels = torch.zeros(64, 32, 32, dtype=torch.uint8)
    labels[:, 8:24, 8:24] = 1  # a face of 16 x 16
    _, moved = Augmentation(scale=[0.25, 1.5])((labels[:, None] * 2.0 - 1).repeat(1, 3, 1, 1), labels)
    sides = (moved == 1).sum((1, 2)).float().sqrt()
    assert 3.5 <= sides.min() < 6 and 20 < sides.max() <= 24.5


def test_pasted_surroundings_are_other_photos_with_unlabeled_faces() -> None:
    torch.manual_seed(0)
    labels = torch.zeros(8, 32, 32, dtype=torch.uint8)
    labels[:, :, 16:] = 7
    image = torch.linspace(-1, 1, 8)[:, None, None, None].expand(8, 3, 32, 32).clone()
    moved, found = Augmentation(scale=[0.3, 0.3], paste=1.0)(image, labels)
    for i in range(8):
        inside = (moved[i, 0] - image[i, 0, 0, 0]).abs() < 1e-4
        outside = (moved[i, 0] - image[i - 1, 0, 0, 0]).abs() < 1e-4
        assert 0.05 < inside.float().mean() < 0.15 and (inside | outside).all()
        assert set(found[i][outside].tolist()) <= {0, UNLABELED}
        assert 7 in found[i][inside]


@pytest.mark.parametrize("name", ["blur", "jpeg", "grayscale", "low_light"])
def test_degradations_change_images_and_keep_labels(name: str) -> None:
    torch.manual_seed(0)
    image = torch.rand(4, 3, 32, 32) * 2 - 1
    labels = torch.randint(0, 19, (4, 32, 32)).to(torch.uint8)
    changed, same = Augmentation(**{name: 1.0})(image, labels)
    assert torch.equal(same, labels)
    assert (changed - image).abs().mean((1, 2, 3)).min() > 0.005
    assert changed.min() >= -1 and changed.max() <= 1
    if name == "grayscale":
        torch.testing.assert_close(changed[:, 0], changed[:, 2])


def test_invalid_probability() -> None:
    with pytest.raises(ValueError, match=r"jpeg must be a probability in \[0, 1\], got 2"):
        Augmentation(jpeg=2)
