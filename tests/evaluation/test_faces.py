from pathlib import Path

import pytest
import torch

from ldm.data.datasets.folders import FolderError
from ldm.data.labels import CELEBAMASK_HQ, CITYSCAPES_TRAIN
from ldm.evaluation.faces import FolderFaces, SyntheticSeries, open_faces
from ldm.evaluation.plan import random_styles
from ldm.evaluation.protocol import Protocol
from ldm.targets import ConfigError
from scripts import draw_faces


def generated(count: int = 12, size: int = 32) -> SyntheticSeries:
    return SyntheticSeries(Protocol("test", "synthetic", 3, 2 + count), CELEBAMASK_HQ, (size, size))


def test_ground_truth_of_a_swap_changes_only_the_regions() -> None:
    faces = generated()
    hair = CELEBAMASK_HQ.index("hair")
    changed = 0
    for number in range(len(faces)):
        other = faces.partner(number, ["hair"])
        if other is None:
            continue
        face, truth = faces[number], faces.truth(number, other, ["hair"])
        assert face is not None
        inside = face.labels == hair
        assert torch.equal(truth[:, ~inside], face.image[:, ~inside])
        changed += int((truth[:, inside] != face.image[:, inside]).any())
        assert torch.equal(faces.truth(number, other, []), face.image)
    assert changed > 5


def test_partners_have_the_regions() -> None:
    faces = generated(40)
    glasses = CELEBAMASK_HQ.index("eye_g")
    wearing = [i for i in range(40) if int((faces[i].labels == glasses).sum()) >= 4]
    assert 1 < len(wearing) < 40
    for number in range(40):
        other = faces.partner(number, ["eye_g"])
        assert (other in wearing and other != number) if number in wearing else other is None
    assert faces.partner(39, []) == 0


def test_names_are_indices_in_the_series() -> None:
    faces = generated(2)
    assert faces.names == ["000003", "000004"]
    assert faces[1].name == "000004"


def test_folders_skip_unreadable_faces_and_select_by_number(tmp_path: Path) -> None:
    draw_faces.main([str(tmp_path), "--count", "5", "--size", "16"])
    (tmp_path / "images/000003.png").write_bytes(b"not an image")
    faces = FolderFaces(Protocol("test", str(tmp_path), first=1, last=3), CELEBAMASK_HQ, (16, 16))
    assert faces.names == ["000001", "000002", "000003"]
    assert faces[2] is None and faces[0] is not None
    assert "000003.png" in faces.problems[2] and len(faces.problems) == 1
    assert faces.partner(1, []) == 0
    assert faces.truth(0, 1, ["hair"]) is None
    with pytest.raises(FolderError, match="no face for first: 7"):
        FolderFaces(Protocol("test", str(tmp_path), first=7), CELEBAMASK_HQ, (16, 16))


def test_generated_faces_require_a_model_of_faces() -> None:
    with pytest.raises(ConfigError, match="Cityscapes"):
        open_faces(Protocol("test", "synthetic", 0, 1), CITYSCAPES_TRAIN, (32, 32))


def test_random_styles_of_all_regions_are_those_of_the_face() -> None:
    protocol = Protocol("test", "synthetic", 3, 5, random={"all": []}, samples=2)
    faces = SyntheticSeries(protocol, CELEBAMASK_HQ, (32, 32))
    specs = random_styles(faces, protocol, "random", "all", 0)
    assert [spec.name for spec in specs] == ["000003_0", "000003_1"]
    assert specs[0].regions == tuple(faces.regions_of(0)) != CELEBAMASK_HQ.regions
    assert random_styles(faces, protocol, "noise", "noise", 0)[0].regions == CELEBAMASK_HQ.regions


def test_the_digest_changes_with_names_and_files(tmp_path: Path) -> None:
    draw_faces.main([str(tmp_path), "--count", "3", "--size", "16"])

    def digest(last: int) -> str:
        return FolderFaces(Protocol("test", str(tmp_path), last=last), CELEBAMASK_HQ, (16, 16)).digest()

    before = digest(1)
    assert digest(1) == before != digest(2)
    (tmp_path / "images/000002.png").write_bytes(b"another")  # not of these faces
    assert digest(1) == before
    (tmp_path / "labels/000001.png").write_bytes((tmp_path / "labels/000000.png").read_bytes())
    assert digest(1) != before
    assert generated(3).digest() == generated(3).digest() != generated(4).digest()
