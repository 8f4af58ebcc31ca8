"""Scores of images for which they are known in closed form."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ldm.data.images import save_png
from ldm.data.labels import CELEBAMASK_HQ
from ldm.evaluation.faces import SyntheticSeries
from ldm.evaluation.grids import draw_cases
from ldm.evaluation.plan import ImageSpec, plan
from ldm.evaluation.protocol import Protocol
from ldm.evaluation.report import _number
from ldm.evaluation.score_tasks import Scorer, TaskScores, ranked
from ldm.metrics.pixels import absolute_error
from ldm.modules.lpips import LPIPS
from tests.small import randomized

PROTOCOL = Protocol(
    "test", "synthetic", 0, 7, swaps={"whole": [], "hair": ["hair"]}, random={"hair": ["hair"]}, samples=3
)
TASKS = ("reconstruct", "swap", "random", "noise")
BYTE = 1 / 255  # precision of PNGs


def faces() -> SyntheticSeries:
    return SyntheticSeries(PROTOCOL, CELEBAMASK_HQ, (32, 32))


def scorer_of(folder: Path, model: Callable[[SyntheticSeries, ImageSpec], Tensor]) -> Scorer:
    """Write the images of a model and return their scorer."""
    known = faces()
    for number in range(len(known)):
        for spec in plan(known, PROTOCOL, TASKS, number):
            save_png(folder / spec.file, model(known, spec))
    return Scorer(known, PROTOCOL, folder, lpips=None)


def perfect(known: SyntheticSeries, spec: ImageSpec) -> Tensor:
    """Return the ground truth."""
    face = known[spec.face]
    assert face is not None
    return (
        face.image if spec.style_source is None else known.truth(spec.face, spec.style_source, spec.regions)
    )


def unswapped(known: SyntheticSeries, spec: ImageSpec) -> Tensor:
    """Return the face in its own style."""
    face = known[spec.face]
    assert face is not None
    return face.image


def test_perfect_swaps_have_no_error_and_no_leakage(tmp_path: Path) -> None:
    scorer = scorer_of(tmp_path, perfect)
    assert scorer.reconstruct().means["l1"] == pytest.approx(0, abs=1e-6)
    for variant in PROTOCOL.swaps:
        found = scorer.swap(variant)
        assert found.means["error"] == pytest.approx(0, abs=1e-6)
        assert found.means["error_ratio"] == pytest.approx(0, abs=1e-5)
        assert found.means["leakage"] == pytest.approx(0, abs=1e-6)
        assert found.means["change"] == pytest.approx(found.means["error_unswapped"], abs=1e-6)
        assert found.means["ssim"] == pytest.approx(1, abs=1e-5)
        assert found.means["color_ratio"] < 0.5  # the mean color depends slightly on the shape
        assert len(found.faces) >= 6


def test_error_ratio_is_one_without_a_swap(tmp_path: Path) -> None:
    found = scorer_of(tmp_path, unswapped).swap("hair")
    assert found.means["error_ratio"] == pytest.approx(1, abs=1e-6)
    assert found.means["color_ratio"] == pytest.approx(1, abs=0.02)
    assert found.means["change"] == 0 and "leakage_ratio" not in found.means


def test_changes_outside_the_regions_are_leakage(tmp_path: Path) -> None:
    hair = CELEBAMASK_HQ.index("hair")

    def leaking(known: SyntheticSeries, spec: ImageSpec) -> Tensor:
        face = known[spec.face]
        assert face is not None
        gray = torch.zeros(3, 32, 32)
        if spec.folder != "swap/hair":
            return gray
        return torch.where(face.labels == hair, gray + 50.5 / 127.5, gray + 10.5 / 127.5)

    found = scorer_of(tmp_path, leaking).swap("hair").means
    # 128 -> 178 inside, 128 -> 138 outside
    assert found["change"] == pytest.approx(50 * BYTE, abs=1e-6)
    assert found["leakage"] == pytest.approx(10 * BYTE, abs=1e-6)
    assert found["leakage_ratio"] == pytest.approx(0.2, abs=1e-6)


def test_reconstruction_scores_of_image_first_stage_and_regions(tmp_path: Path) -> None:
    def shifted(known: SyntheticSeries, spec: ImageSpec) -> Tensor:
        face = known[spec.face]
        assert face is not None
        offset = 20 if spec.folder == "first_stage" else 40
        levels = (face.image + 1) * 127.5
        return torch.where(levels > 127, levels - offset, levels + offset) / 127.5 - 1

    found = scorer_of(tmp_path, shifted).reconstruct()
    assert found.means["l1"] == pytest.approx(40 * BYTE, abs=1e-6)
    assert found.means["first_stage_l1"] == pytest.approx(20 * BYTE, abs=1e-6)
    assert found.means["first_stage_psnr"] - found.means["psnr"] == pytest.approx(6.0206, abs=1e-3)
    assert found.regions["hair"]["l1"] == pytest.approx(40 * BYTE, abs=1e-6)
    counted = sum(int((known.labels != 255).sum()) for known in map(faces().__getitem__, range(8)))
    assert sum(row["pixels"] for row in found.regions.values()) == counted


def test_diversity_is_the_mean_over_all_pairs(tmp_path: Path) -> None:
    hair = CELEBAMASK_HQ.index("hair")

    def varied(known: SyntheticSeries, spec: ImageSpec) -> Tensor:
        face = known[spec.face]
        assert face is not None
        sample = int(spec.name[-1]) if spec.folder == "random/hair" else 0
        black = -torch.ones(3, 32, 32)
        return torch.where(face.labels == hair, black + sample * 30 / 127.5, black)

    scorer = scorer_of(tmp_path, varied)
    found = scorer.diversity("random", "hair").means
    assert found["l1_inside"] == pytest.approx((30 + 60 + 30) / 3 * BYTE, abs=1e-6)
    assert found["l1_outside"] == 0
    assert scorer.diversity("noise", "noise").means["l1_inside"] == 0


def test_ranking_by_the_first_available_score() -> None:
    scores = TaskScores(
        faces={
            "a": {"psnr": 20.0, "error": 3.0},
            "b": {"psnr": 30.0, "error": 1.0},
            "c": {"psnr": float("nan")},
        }
    )
    assert ranked(scores, ["psnr"]) == ["b", "a"]
    assert ranked(scores, ["-lpips", "error"]) == ["a", "b"]


class RecordingLPIPS(LPIPS):
    """LPIPS that records how many pairs it compares at once."""

    def between(self, first: list[Tensor], second: list[Tensor], size: tuple[int, ...]) -> Tensor:
        self.most = max(getattr(self, "most", 0), len(first[0]))
        return super().between(first, second, size)


def test_distances_of_pairs_are_computed_one_at_a_time(tmp_path: Path) -> None:
    lpips = randomized(RecordingLPIPS("alex"))
    images = torch.rand(5, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        maps = Scorer(faces(), PROTOCOL, tmp_path, lpips)._pairwise(images)
        pairs = torch.combinations(torch.arange(5))
        assert lpips.most == 1
        expected = lpips(images[pairs[:, 0]], images[pairs[:, 1]]).mean(0)
    torch.testing.assert_close(maps["lpips"], expected)
    torch.testing.assert_close(maps["l1"], absolute_error(images[pairs[:, 0]], images[pairs[:, 1]]).mean(0))


def test_swaps_of_photos_rank_by_the_color_that_they_reach(tmp_path: Path) -> None:
    rows = {
        "ignored": {"change": 0.0, "leakage": 0.0, "color_error": 30.0},
        "followed": {"change": 0.3, "leakage": 0.1, "color_error": 2.0},
    }
    for name in ("000000", "000001"):
        for folder in ("reconstruct", "swap/whole"):
            save_png(tmp_path / folder / f"{name}.png", torch.zeros(3, 32, 32))
    scores = TaskScores(faces={"000000": rows["ignored"], "000001": rows["followed"]})
    drawn: list[list[str]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "ldm.evaluation.grids.draw_grid", lambda grid, rows: drawn.append(rows) or grid["mask"][0]
        )
        draw_cases(scores, "swap", "whole", faces(), PROTOCOL, tmp_path, tmp_path / "grids")
    assert drawn[0][0] == "best: 000001"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (0.000049, "4.9e-05"),
        (-0.0012345, "-0.00123"),
        (0.0123, "0.0123"),
        (1.5, "1.5000"),
        (12.345, "12.35"),
        (float("inf"), "-"),
    ],
)
def test_numbers_keep_three_significant_digits(value: float, text: str) -> None:
    assert _number(value) == text
