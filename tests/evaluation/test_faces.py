from pathlib import Path

import pytest
import torch

from ldm.data.datasets.folders import FolderError
from ldm.data.labels import CELEBAMASK_HQ, CITYSCAPES_TRAIN
from ldm.evaluation.faces import FolderFaces, SyntheticSeries, open_faces
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
