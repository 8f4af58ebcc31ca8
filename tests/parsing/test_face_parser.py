import json
from pathlib import Path

import pytest
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import write_checkpoint
from ldm.data.labels import CELEBAMASK_HQ
from ldm.parsing import FaceParser
from ldm.parsing.face_parser import _trained_size
from tests import small
from tests.models.test_segformer import NETWORK

# The order of the much-used face-parsing.PyTorch, in words that others use.
OTHER_ORDER = {
    "background": "background",
    "skin": "skin",
    "left eyebrow": "l_brow",
    "right eyebrow": "r_brow",
    "left_eye": "l_eye",
    "right_eye": "r_eye",
    "Eyeglasses": "eye_g",
    "l_ear": "l_ear",
    "r_ear": "r_ear",
    "earring": "ear_r",
    "nose": "nose",
    "mouth": "mouth",
    "upper lip": "u_lip",
    "lower lip": "l_lip",
    "neck": "neck",
    "necklace": "neck_l",
    "Clothes": "cloth",
    "hair": "hair",
    "hat": "hat",
}


def saved(folder: Path, names: list[str], order: list[int] | None = None) -> Path:
    """Save a random SegFormer in transformers' format; `order` rearranges its classes."""
    torch.manual_seed(0)
    config = SegformerConfig(**NETWORK, id2label=dict(enumerate(names)))
    network = SegformerForSemanticSegmentation(config)
    with torch.no_grad():
        head = network.decode_head.classifier
        head.weight *= 20  # untrained, but not the same everywhere
        if order is not None:
            head.weight.copy_(head.weight[order])
            head.bias.copy_(head.bias[order])
    network.save_pretrained(folder)
    facts = {"size": {"height": 32, "width": 32}, "image_mean": [0.5] * 3, "image_std": [0.25] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))
    return folder


def test_classes_of_another_order_are_mapped_by_name(tmp_path: Path) -> None:
    ours = FaceParser.from_pretrained(saved(tmp_path / "ours", list(CELEBAMASK_HQ.regions)), device="cpu")
    order = CELEBAMASK_HQ.indices(OTHER_ORDER.values())
    theirs = FaceParser.from_pretrained(saved(tmp_path / "theirs", list(OTHER_ORDER), order), device="cpu")
    image = small.batch(2, 48)["image"]
    labels = ours.parse(image)
    assert labels.shape == (2, 48, 48) and labels.dtype == torch.uint8
    assert len(labels.unique()) > 3
    assert torch.equal(theirs.parse(image), labels)
    assert torch.equal(ours.parse(image[0]), labels[0])


def test_size_and_normalization_are_the_folders(tmp_path: Path) -> None:
    parser = FaceParser.from_pretrained(saved(tmp_path, list(CELEBAMASK_HQ.regions)), device="cpu")
    assert parser.size == (32, 32)
    white = torch.ones(1, 3, 40, 40)
    torch.testing.assert_close(parser._pixels(white), torch.full((1, 3, 32, 32), 2.0))  # (1 - 0.5) / 0.25


def test_a_parser_without_some_regions_says_which(tmp_path: Path) -> None:
    parser = FaceParser.from_pretrained(saved(tmp_path, ["background", "hair", "face"]), device="cpu")
    assert "cloth" in parser.missing and len(parser.missing) == 16
    assert set(parser.parse(small.batch(1)["image"]).unique().tolist()) <= {0, 1, 13}


def test_classes_without_names_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"'LABEL_0', 'LABEL_1'.*id2label"):
        FaceParser.from_pretrained(saved(tmp_path, ["LABEL_0", "LABEL_1"]), device="cpu")


def test_what_is_no_parser_is_named(tmp_path: Path) -> None:
    config = small.diffusion()
    write_checkpoint(tmp_path / "run", small.sensitive(config).state_dict(), {"model": config})
    with pytest.raises(CheckpointError, match="expected a face parser, got a LatentDiffusion"):
        FaceParser.from_pretrained(tmp_path / "run", device="cpu")
    (tmp_path / "config.json").write_text('{"model_type": "nothing"}')
    with pytest.raises(CheckpointError, match=r"neither a run folder of main\.py nor a segmentation network"):
        FaceParser.from_pretrained(tmp_path, device="cpu")


def test_what_is_no_photo_is_refused(tmp_path: Path) -> None:
    parser = FaceParser.from_pretrained(saved(tmp_path, list(CELEBAMASK_HQ.regions)), device="cpu")
    with pytest.raises(ValueError, match="expected a photo"):
        parser.parse(torch.zeros(1, 16, 16))
    with pytest.raises(ValueError, match="finite"):
        parser.parse(torch.full((3, 16, 16), torch.nan))


@pytest.mark.parametrize(
    ("params", "size"),
    [({"size": 96}, (96, 96)), ({"datasets": [{"params": {"size": [64, 80]}}, {"params": {}}]}, (64, 80))],
)
def test_the_size_is_that_of_the_training_data(params: dict, size: tuple[int, int]) -> None:
    assert _trained_size({"data": {"params": {"train": {"params": params}}}}) == size
