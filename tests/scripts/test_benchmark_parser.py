"""scripts/benchmark_parser.py: label maps of crops, parsers whose scores are known, the command line."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ldm.checkpoints.io import write_checkpoint
from ldm.data.datasets.celebamask import CelebAMaskHQ
from ldm.data.images import save_png
from ldm.data.label_maps import save_labels
from ldm.data.labels import CELEBAMASK_HQ, UNLABELED
from ldm.metrics.overlap import overlap
from ldm.models.segmenter import EfficientFaceParser
from ldm.parsing import FaceParser
from ldm.parsing.alignment import Crop
from scripts import benchmark_parser
from scripts.benchmark_parser import VIEWS, cut_labels, measure

SIDE = 64
BACKGROUND, SKIN, HAIR, LEFT_EYE, RIGHT_EYE = CELEBAMASK_HQ.indices(
    ["background", "skin", "hair", "l_eye", "r_eye"]
)
PALETTE = torch.tensor(CELEBAMASK_HQ.palette) / 127.5 - 1  # (R, 3)


class ByColor(nn.Module):
    """Parses photos that are painted in the palette: the nearest color's region."""

    def __init__(self) -> None:
        super().__init__()
        self.palette = nn.Parameter(PALETTE)

    def forward(self, image: Tensor) -> Tensor:
        return -(image[:, None] - self.palette[..., None, None]).square().sum(2)  # (B, R, H, W)


def face(exchanged: bool = False) -> Tensor:
    """Return the label map of a face."""
    labels = torch.full((SIDE, SIDE), BACKGROUND, dtype=torch.uint8)
    labels[8:24, 8:56], labels[24:60, 8:56] = HAIR, SKIN
    eyes = (LEFT_EYE, RIGHT_EYE) if exchanged else (RIGHT_EYE, LEFT_EYE)  # the person's left is on the right
    labels[32:40, 16:28], labels[32:40, 36:48] = eyes
    return labels


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Write two painted faces; in the label map of the second, left and right are exchanged."""
    for number, exchanged in enumerate([False, True]):
        save_png(tmp_path / "images" / f"{number}.png", PALETTE[face().long()].permute(2, 0, 1))
        save_labels(tmp_path / "labels" / f"{number}.png", face(exchanged), CELEBAMASK_HQ)
    return tmp_path


def test_the_upright_crop_is_the_label_map() -> None:
    assert torch.equal(cut_labels(face(), VIEWS[0].crop(SIDE)), face())


def test_at_half_the_scale_every_second_label_is_in_the_middle() -> None:
    found = cut_labels(face(), VIEWS[3].crop(SIDE))
    assert torch.equal(found[16:48, 16:48], face()[1::2, 1::2])
    assert (found == UNLABELED).sum() == SIDE**2 * 3 // 4


def test_a_quarter_turn_rotates_image_and_label_map_alike() -> None:
    crop = Crop(complex(32, 32), 32j)
    expected = torch.rot90(face())
    assert torch.equal(cut_labels(face(), crop), expected)
    assert torch.allclose(crop.cut(face()[None].float() / 20, (SIDE, SIDE))[0], expected / 20, atol=1e-4)


def test_a_parser_that_is_right_loses_only_the_exchanged_sides(faces: Path) -> None:
    parser = FaceParser(ByColor(), CELEBAMASK_HQ.regions, (SIDE, SIDE), ((0.5,) * 3,) * 2)
    counts = measure(parser, CelebAMaskHQ(SIDE, str(faces)))
    upright = counts[VIEWS[0]]
    assert overlap(upright.repaired).miou == overlap(upright.repaired).pixel_accuracy == 1
    # Half of each eye's pixels agree: IoU 1/3 of two of the five regions.
    assert overlap(upright.drawn).miou == pytest.approx((3 + 2 / 3) / 5)
    # An eye is 6 x 4 pixels at half the scale, of which mixed colors at the rim take some.
    for view, least in zip(VIEWS[1:], (0.85, 0.85, 0.85, 0.5), strict=True):
        scores = overlap(counts[view].repaired)
        assert scores.iou[SKIN] > 0.8 and scores.miou > least
    outside = [int(2 * SIDE**2 - counts[view].drawn.sum()) for view in VIEWS]
    assert outside[0] == 0 and outside[3:] == [2 * SIDE**2 * 3 // 4, 2 * SIDE**2 * 15 // 16]
    assert outside[1] == outside[2] > 0


@pytest.mark.parametrize(("region", "ratio"), [("background", "1.000"), ("hat", "nan")])
def test_a_table_of_a_saved_parser_that_finds_one_region(
    region: str, ratio: str, faces: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "parser"
    params = {"widths": [8, 8, 8, 8, 8], "input_side": 32}
    config = {"model": {"target": "ldm.models.segmenter.EfficientFaceParser", "params": params}}
    model = EfficientFaceParser(**params)
    with torch.no_grad():
        model.network.head.weight.zero_()
        model.network.head.bias.zero_()[CELEBAMASK_HQ.index(region)] = 1
    folder.mkdir()
    write_checkpoint(folder, model.state_dict(), config=config)
    options = [str(faces), "--last", "0", "--size", "64", "--parser", str(folder)]
    assert benchmark_parser.main([*options, "--input-side", "64"]) == 0
    printed = capsys.readouterr().out
    assert all(f"| {view.name} |" in printed for view in VIEWS)
    assert printed.splitlines()[2].split(" | ")[2] == ratio
    assert "1 faces at 64x64, input of the network 64x64" in printed
    assert benchmark_parser.main(options) == 0
    assert "input of the network 32x32" in capsys.readouterr().out


def test_a_folder_without_faces_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark_parser.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "images" in error and error.count("\n") == 1


def test_an_input_side_that_the_strides_do_not_divide_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark_parser.main(["faces", "--input-side", "100"])
    assert "divisible by 32, got 100" in capsys.readouterr().err
