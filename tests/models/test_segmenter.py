"""The face parser on EfficientNet-Lite0: trained from a YAML, loaded without the ImageNet package, parsing."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.metrics.overlap import confusion, overlap
from ldm.models.segmenter import EfficientFaceParser
from ldm.modules.efficientnet import load_imagenet
from ldm.parsing import FaceParser
from ldm.targets import ConfigError
from tests.training.runs import only_run, rows, train_here

FACES = "ldm.data.synthetic.dataset.SyntheticFaces"
AUGMENTATION = {
    "degrees": 10,
    "scale": [0.8, 1.2],
    "blur": 0.1,
    "jpeg": 0.2,
    "grayscale": 0.1,
    "low_light": 0.1,
    "paste": 0.3,
}
TRAINING: dict[str, Any] = {
    "model": {
        "target": "ldm.models.segmenter.EfficientFaceParser",
        "base_learning_rate": 2.5e-4,
        "params": {
            "widths": [16, 16, 16, 32, 32],
            "pretrained": True,
            "input_side": 64,
            "augmentation": AUGMENTATION,
            "anneal_steps": 100,
        },
    },
    "data": {
        "target": "main.DataModuleFromConfig",
        "params": {
            "batch_size": 8,
            "num_workers": 0,
            "train": {
                "target": "ldm.data.datasets.concatenated.Concatenated",
                "params": {
                    "datasets": [
                        {"target": FACES, "params": {"size": 64, "length": 80}},
                        {"target": FACES, "params": {"size": 64, "length": 80, "seed": 5}},
                    ]
                },
            },
            "validation": {"target": FACES, "params": {"size": 64, "length": 12, "seed": 1}},
        },
    },
    "lightning": {
        "trainer": {
            "max_steps": 100,
            "accelerator": "cpu",
            "log_every_n_steps": 1,
            "check_val_every_n_epoch": 1,
        },
        "checkpoint": {"monitor_mode": "max"},
    },
}


def test_it_trains_from_a_yaml_and_parses_without_the_imagenet_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "parser.yaml"
    OmegaConf.save(OmegaConf.create(TRAINING), config)
    assert train_here(tmp_path, base=config) == 0
    scores = [float(row["val/miou"]) for row in rows(tmp_path) if row.get("val/miou")]
    assert len(scores) == 5 and scores[-1] > scores[0]
    monkeypatch.setattr("ldm.modules.efficientnet.PACKAGE", "no-such-package")
    parser = FaceParser.from_pretrained(only_run(tmp_path))
    assert parser.size == (64, 64) and parser.missing == []
    faces = SyntheticFaces(64, 4, seed=1)
    images, labels = (torch.stack([faces[i][key] for i in range(4)]) for key in ("image", "labels"))
    found = overlap(confusion(parser.parse(images), labels, len(parser.label_set)))
    assert found.pixel_accuracy > 0.5
    assert parser.features(images).shape == (4, 320)


def test_the_encoder_starts_from_imagenet() -> None:
    encoder = EfficientFaceParser(pretrained=True).network.encoder
    assert torch.equal(encoder.stem.weight, load_imagenet().stem.weight)


def test_logits_have_half_the_side_and_follow_the_image_size() -> None:
    model = EfficientFaceParser(widths=[8, 8, 8, 8, 8]).eval()
    assert model.network(torch.zeros(2, 3, 64, 96)).shape == (2, 19, 32, 48)
    assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 19, 64, 96)


@pytest.mark.parametrize("side", [0, 100, -32])
def test_an_input_side_that_the_strides_do_not_divide_is_refused(side: int) -> None:
    with pytest.raises(ConfigError, match=f"input_side must be divisible by 32, got {side}"):
        EfficientFaceParser(input_side=side)


def test_the_loss_is_zero_without_labels_and_counts_each_labeled_pixel() -> None:
    m = EfficientFaceParser(widths=[16, 16, 16, 32, 32])
    logits = torch.randn(2, 19, 4, 4, requires_grad=True)
    labels = torch.full((2, 4, 4), 255, dtype=torch.uint8)
    loss = m._loss(logits, labels)
    loss.backward()
    assert loss == 0 and not logits.grad.any()
    labels[0, 0, :2] = torch.tensor([0, 3], dtype=torch.uint8)
    known = logits[0, :, 0, :2].T
    p = known.softmax(1)
    dice = [2 * p[0, 0] / (p[:, 0].sum() + 1), 2 * p[1, 3] / (p[:, 3].sum() + 1)]
    expected = F.cross_entropy(known, torch.tensor([0, 3])) + 1 - sum(dice) / 2
    torch.testing.assert_close(m._loss(logits, labels), expected)
