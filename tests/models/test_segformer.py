from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.metrics.overlap import confusion, overlap
from ldm.models.segformer import SegFormer
from ldm.parsing import FaceParser
from ldm.targets import ConfigError
from tests import small
from tests.training.runs import only_run, rows, train_here

NETWORK = {
    "strides": [2, 2, 2, 2],
    "hidden_sizes": [8, 8, 16, 16],
    "depths": [1, 1, 1, 1],
    "num_attention_heads": [1, 1, 2, 2],
    "decoder_hidden_size": 32,
}
FACES = "ldm.data.synthetic.dataset.SyntheticFaces"
TRAINING: dict[str, Any] = {
    "model": {
        "target": "ldm.models.segformer.SegFormer",
        "base_learning_rate": 1e-3,
        "params": {"segformer": NETWORK, "augmentation": {"degrees": 5, "color": 0.2}, "anneal_steps": 80},
    },
    "data": {
        "target": "main.DataModuleFromConfig",
        "params": {
            "batch_size": 8,
            "num_workers": 0,
            "train": {"target": FACES, "params": {"size": 32, "length": 160}},
            "validation": {"target": FACES, "params": {"size": 32, "length": 12, "seed": 1}},
        },
    },
    "lightning": {
        "trainer": {
            "max_steps": 80,
            "accelerator": "cpu",
            "log_every_n_steps": 1,
            "check_val_every_n_epoch": 1,
        },
        "checkpoint": {"monitor_mode": "max"},
        "callbacks": {"image_logger": {"target": "main.ImageLogger", "params": {"batch_frequency": 80}}},
    },
}


def test_a_face_parser_trains_from_a_yaml_and_then_parses(tmp_path: Path) -> None:
    config = tmp_path / "parser.yaml"
    OmegaConf.save(OmegaConf.create(TRAINING), config)
    assert train_here(tmp_path, base=config) == 0
    logged = rows(tmp_path)
    scores = [float(row["val/miou"]) for row in logged if row.get("val/miou")]
    assert len(scores) == 4 and scores[-1] > 1.2 * scores[0]
    assert all(0 <= float(row["val/iou/hair"]) <= 1 for row in logged if row.get("val/iou/hair"))
    assert (only_run(tmp_path) / "checkpoints/best.ckpt").is_file()
    assert list((only_run(tmp_path) / "images").glob("*.png"))
    parser = FaceParser.from_pretrained(only_run(tmp_path), device="cpu")
    assert parser.size == (32, 32) and not parser.missing
    faces = SyntheticFaces(32, 12, seed=1)  # what the run was validated on
    images = torch.stack([faces[i]["image"] for i in range(12)])
    labels = torch.stack([faces[i]["labels"] for i in range(12)])
    assert overlap(confusion(parser.parse(images), labels, 19)).miou == pytest.approx(scores[-1], abs=0.01)


def test_the_loss_is_cross_entropy_and_dice_of_the_labelled_pixels_alone() -> None:
    model = SegFormer(NETWORK)
    labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
    labels[:, 4:] = 13
    certain = 50 * torch.nn.functional.one_hot(labels.long(), 19).movedim(-1, 1).float()
    assert float(model._loss(certain, labels)) == pytest.approx(0, abs=1e-6)
    # Without a clue: log 19, and a Dice of 2 * (32/19) / (32 + 64/19) for both regions.
    blind = float(torch.tensor(19.0).log()) + 1 - 2 * (32 / 19) / (32 + 64 / 19)
    assert float(model._loss(torch.zeros(2, 19, 8, 8), labels)) == pytest.approx(blind, rel=1e-5)
    partly = labels.clone()
    partly[:, :, 4:] = 255
    wrong_there = certain.clone()
    wrong_there[..., 4:] = -wrong_there[..., 4:]
    assert float(model._loss(wrong_there, partly)) == pytest.approx(0, abs=1e-6)


def test_it_accepts_any_size_that_it_can_halve(tmp_path: Path) -> None:
    model = small.randomized(SegFormer(NETWORK))
    assert model(torch.zeros(1, 3, 32, 48)).shape == (1, 19, 32, 48)


def test_an_unknown_label_set_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"one of CelebAMask-HQ, Cityscapes.*got .celeba"):
        SegFormer(NETWORK, label_set="celeba")
