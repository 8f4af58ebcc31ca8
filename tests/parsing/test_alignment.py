"""Alignment: wherever a face is in a photo, it comes out in the same place.

The photos are painted label maps, for which a nearest color is an exact face parser.
"""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ldm.data.labels import CELEBAMASK_HQ
from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.parsing import FaceParser
from ldm.parsing.alignment import AlignmentError, Crop, crop_around, landmarks
from ldm.parsing.photo_faces import align
from ldm.studio.uploads import aligned_face


class NearestColor(nn.Module):
    """Says of every pixel which region's color is nearest."""

    def __init__(self) -> None:
        super().__init__()
        colors = torch.tensor(CELEBAMASK_HQ.palette).float() / 127.5 - 1
        self.colors = nn.Parameter(colors, requires_grad=False)

    def forward(self, pixels: Tensor) -> Tensor:
        return -torch.cdist(pixels.permute(0, 2, 3, 1), self.colors).permute(0, 3, 1, 2)


@pytest.fixture(scope="module")
def parser() -> FaceParser:
    return FaceParser(NearestColor(), CELEBAMASK_HQ.regions, (256, 256), ((0.5,) * 3, (0.5,) * 3))


def painted(index: int, degrees: float = 0, scale: float = 1.0, at: tuple[int, int] = (0, 0)) -> Image.Image:
    """Return a generated face, painted in its regions' colors, turned and placed on a wide photo of background."""
    labels = SyntheticFaces(256, 50, seed=5)[index]["labels"]
    face = Image.fromarray(CELEBAMASK_HQ.colorize(labels))
    background = CELEBAMASK_HQ.palette[0]
    photo = Image.new("RGB", (900, 600), background)
    photo.paste(face, (300, 150))
    # The map goes from the result to the source.
    turn, (x, y) = math.radians(degrees), (450 + at[0], 300 + at[1])
    c, s = math.cos(turn) / scale, math.sin(turn) / scale
    return photo.transform(
        photo.size,
        Image.Transform.AFFINE,
        (c, s, 450 - c * x - s * y, -s, c, 300 + s * x - c * y),
        Image.Resampling.NEAREST,
        fillcolor=background,
    )


def without_glasses(index: int) -> bool:
    labels = SyntheticFaces(256, 50, seed=5)[index]["labels"]
    return landmarks(labels, CELEBAMASK_HQ) is not None and not (labels == 3).any()


FACE = next(index for index in range(50) if without_glasses(index))
GLASSES = next(
    index for index in range(50) if (SyntheticFaces(256, 50, seed=5)[index]["labels"] == 3).sum() > 200
)


@pytest.mark.parametrize(
    ("degrees", "scale", "at"), [(0, 1, (0, 0)), (25, 1, (0, 0)), (-30, 1.3, (60, 20)), (10, 0.7, (-150, 80))]
)
def test_the_crop_follows_the_face(parser, degrees, scale, at) -> None:
    image, labels = align(painted(FACE, degrees, scale, at), parser, (128, 128))
    still, _ = align(painted(FACE), parser, (128, 128))
    assert image.shape == (3, 128, 128) and labels.shape == (128, 128)
    found = landmarks(labels, CELEBAMASK_HQ)
    assert found is not None
    left, right, mouth = found
    assert abs(left.imag - right.imag) < 0.03  # the eyes are level
    # The rule of the crop itself, from the middle of the eyes: a tenth of the way down to the mouth is the center.
    eyes = (left + right) / 2
    assert abs(eyes + 0.1 * (mouth - eyes)) < 0.03
    assert max(2 * abs(right - left), 1.8 * abs(mouth - eyes)) == pytest.approx(1, abs=0.04)
    assert float((image - still).abs().mean()) < 0.06


def test_pixels_are_those_that_a_file_holds(parser) -> None:
    image, _ = align(painted(FACE, 12), parser, (64, 64))
    levels = (image + 1) * 127.5
    assert torch.equal(levels.round(), levels) or float((levels - levels.round()).abs().max()) < 1e-4


def test_eyes_behind_glasses_are_found(parser) -> None:
    labels = SyntheticFaces(256, 50, seed=5)[GLASSES]["labels"].clone()
    seen = landmarks(labels, CELEBAMASK_HQ)
    labels[(labels == 4) | (labels == 5)] = 3
    hidden = landmarks(labels, CELEBAMASK_HQ)
    assert seen is not None and hidden is not None
    assert all(abs(a - b) < 0.1 for a, b in zip(seen, hidden, strict=True))


def test_an_uploaded_photo_becomes_a_face_of_the_models_size(parser) -> None:
    file = io.BytesIO()
    painted(FACE, 15).save(file, "PNG")
    face = aligned_face(file.getvalue(), parser, (64, 64))
    assert face.image.shape == (3, 64, 64) and landmarks(face.labels, CELEBAMASK_HQ) is not None


def test_a_photo_of_no_face_says_what_to_do(parser) -> None:
    with pytest.raises(AlignmentError, match="no face was found"):
        align(Image.new("RGB", (300, 200), CELEBAMASK_HQ.palette[0]), parser, (64, 64))


def test_a_crop_is_cut_as_its_points_say() -> None:
    y, x = np.mgrid[:200, :300]
    photo = torch.from_numpy(np.stack([x / 150 - 1, y / 100 - 1, 0 * x]).astype(np.float32))
    crop = Crop(complex(150, 90), complex(30, 20))
    cut = crop.cut(photo, (64, 64))
    for row, column in ((5, 9), (40, 60), (32, 32)):
        place = crop.point((column + 0.5) / 32 - 1, (row + 0.5) / 32 - 1)
        assert float(cut[0, row, column]) == pytest.approx((place.real - 0.5) / 150 - 1, abs=2e-3)
        assert float(cut[1, row, column]) == pytest.approx((place.imag - 0.5) / 100 - 1, abs=2e-3)


def test_the_crop_of_an_upright_face_is_upright_and_turns_with_it() -> None:
    crop = crop_around(complex(40, 50), complex(60, 50), complex(50, 75))
    assert crop.axis.imag == pytest.approx(0) and crop.axis.real == pytest.approx(45)
    assert crop.center == pytest.approx(complex(50, 52.5))
    turned = crop_around(*(1j * point for point in (complex(40, 50), complex(60, 50), complex(50, 75))))
    assert turned.axis == pytest.approx(1j * crop.axis) and turned.center == pytest.approx(1j * crop.center)
