"""Scores of pictures whose scores are known."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ldm.data.images import save_png
from ldm.data.labels import CELEBAMASK_HQ
from ldm.evaluation.faces import GeneratedFaces
from ldm.evaluation.plan import Picture, plan
from ldm.evaluation.protocol import Protocol
from ldm.evaluation.score_tasks import Scorer, TaskScores, ranked

PROTOCOL = Protocol(
    "test", "synthetic", 0, 7, swaps={"whole": [], "hair": ["hair"]}, random={"hair": ["hair"]}, samples=3
)
TASKS = ("reconstruct", "swap", "random", "noise")
BYTE = 1 / 255  # PNGs round to it


def faces() -> GeneratedFaces:
    return GeneratedFaces(PROTOCOL, CELEBAMASK_HQ, (32, 32))


def written(folder: Path, picture: Callable[[GeneratedFaces, Picture], Tensor]) -> Scorer:
    """Write the pictures that a model would have made, and return who scores them."""
    known = faces()
    for number in range(len(known)):
        for wanted in plan(known, PROTOCOL, TASKS, number):
            save_png(folder / wanted.file, picture(known, wanted))
    return Scorer(known, PROTOCOL, folder, lpips=None)


def right(known: GeneratedFaces, picture: Picture) -> Tensor:
    """What a perfect model makes."""
    face = known[picture.face]
    assert face is not None
    return face.image if picture.other is None else known.truth(picture.face, picture.other, picture.regions)


def own(known: GeneratedFaces, picture: Picture) -> Tensor:
    """What a model makes that ignores all other styles."""
    face = known[picture.face]
    assert face is not None
    return face.image


def test_a_perfect_model_has_no_error_and_leaks_nothing(tmp_path: Path) -> None:
    scorer = written(tmp_path, right)
    assert scorer.reconstruct().means["l1"] == pytest.approx(0, abs=1e-6)
    for variant in PROTOCOL.swaps:
        found = scorer.swap(variant)
        assert found.means["error"] == pytest.approx(0, abs=1e-6)
        assert found.means["error_ratio"] == pytest.approx(0, abs=1e-5)
        assert found.means["leakage"] == pytest.approx(0, abs=1e-6)
        assert found.means["change"] == pytest.approx(found.means["error_unswapped"], abs=1e-6)
        assert found.means["ssim"] == pytest.approx(1, abs=1e-5)
        assert found.means["colour_ratio"] < 0.5  # the mean of a region depends a little on its shape
        assert len(found.faces) >= 6


def test_a_model_that_does_not_swap_has_the_error_of_not_swapping(tmp_path: Path) -> None:
    found = written(tmp_path, own).swap("hair")
    assert found.means["error_ratio"] == pytest.approx(1, abs=1e-6)
    assert found.means["colour_ratio"] == pytest.approx(1, abs=0.02)
    assert found.means["change"] == 0 and "leakage_ratio" not in found.means


def test_what_changes_outside_the_regions_is_leakage(tmp_path: Path) -> None:
    hair = CELEBAMASK_HQ.index("hair")

    def leaking(known: GeneratedFaces, picture: Picture) -> Tensor:
        face = known[picture.face]
        assert face is not None
        grey = torch.zeros(3, 32, 32)
        if picture.folder != "swap/hair":
            return grey
        return torch.where(face.labels == hair, grey + 50.5 / 127.5, grey + 10.5 / 127.5)

    found = written(tmp_path, leaking).swap("hair").means
    # 128 -> 178 inside, 128 -> 138 outside
    assert found["change"] == pytest.approx(50 * BYTE, abs=1e-6)
    assert found["leakage"] == pytest.approx(10 * BYTE, abs=1e-6)
    assert found["leakage_ratio"] == pytest.approx(0.2, abs=1e-6)


def test_reconstruction_stands_beside_the_ceiling_whole_and_by_region(tmp_path: Path) -> None:
    def shifted(known: GeneratedFaces, picture: Picture) -> Tensor:
        face = known[picture.face]
        assert face is not None
        by = 20 if picture.folder == "first_stage" else 40
        levels = (face.image + 1) * 127.5
        return torch.where(levels > 127, levels - by, levels + by) / 127.5 - 1

    found = written(tmp_path, shifted).reconstruct()
    assert found.means["l1"] == pytest.approx(40 * BYTE, abs=1e-6)
    assert found.means["first_stage_l1"] == pytest.approx(20 * BYTE, abs=1e-6)
    assert found.means["first_stage_psnr"] - found.means["psnr"] == pytest.approx(6.0206, abs=1e-3)
    assert found.regions["hair"]["l1"] == pytest.approx(40 * BYTE, abs=1e-6)
    counted = sum(int((known.labels != 255).sum()) for known in map(faces().__getitem__, range(8)))
    assert sum(row["pixels"] for row in found.regions.values()) == counted


def test_variety_is_the_mean_of_all_pairs_inside_and_outside(tmp_path: Path) -> None:
    hair = CELEBAMASK_HQ.index("hair")

    def varied(known: GeneratedFaces, picture: Picture) -> Tensor:
        face = known[picture.face]
        assert face is not None
        sample = int(picture.name[-1]) if picture.folder == "random/hair" else 0
        black = -torch.ones(3, 32, 32)
        return torch.where(face.labels == hair, black + sample * 30 / 127.5, black)

    scorer = written(tmp_path, varied)
    found = scorer.variety("random", "hair").means
    assert found["l1_inside"] == pytest.approx((30 + 60 + 30) / 3 * BYTE, abs=1e-6)
    assert found["l1_outside"] == 0
    assert scorer.variety("noise", "noise").means["l1_inside"] == 0


def test_faces_are_ranked_by_the_first_score_that_is_there() -> None:
    scores = TaskScores(
        faces={
            "a": {"psnr": 20.0, "error": 3.0},
            "b": {"psnr": 30.0, "error": 1.0},
            "c": {"psnr": float("nan")},
        }
    )
    assert ranked(scores, ["psnr"]) == ["b", "a"]
    assert ranked(scores, ["-lpips", "error"]) == ["a", "b"]
