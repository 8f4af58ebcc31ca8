from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from ldm.checkpoints.errors import CheckpointError
from ldm.data.images import to_tensor
from ldm.modules.efficientnet import (
    BN_EPS,
    EfficientNetLite0,
    PerceptualDistance,
    fold_batch_norms,
    imagenet_file,
    load_imagenet,
)

DEMO = Path(__file__).parents[2] / "assets/faces/images/000005.png"


def test_folded_batch_norms_give_the_outputs_of_convolution_and_batch_norm() -> None:
    weights = torch.load(imagenet_file(), weights_only=True)
    network = EfficientNetLite0()
    network.load_state_dict(fold_batch_norms(weights, "file"))
    image = torch.rand(1, 3, 33, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1
    x = F.pad(
        ((image + 1) * 127.5 - 127) / 128, (0, 1, 1, 1)
    )  # "SAME": 33 rows need one above, 48 columns none left
    x = F.conv2d(x, weights["_conv_stem.weight"], stride=2)
    norm = (weights[f"_bn0.{name}"] for name in ("running_mean", "running_var", "weight", "bias"))
    expected = F.batch_norm(x, *norm, eps=BN_EPS).clamp(0, 6)
    found = F.relu6(network.stem(((image + 1) * 127.5 - 127) / 128))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_features_have_the_strides_of_the_stages() -> None:
    shapes = [tuple(x.shape[1:]) for x in EfficientNetLite0()(torch.zeros(1, 3, 64, 96))]
    assert shapes == [
        (16, 32, 48),
        (24, 16, 24),
        (40, 8, 12),
        (80, 4, 6),
        (112, 4, 6),
        (192, 2, 3),
        (320, 2, 3),
    ]


def test_a_file_of_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"other\.pth.*_conv_stem\.weight"):
        load_imagenet(tmp_path / "other.pth")


def test_keys_that_are_missing_or_left_over_are_named(tmp_path: Path) -> None:
    weights = torch.load(imagenet_file(), weights_only=True)
    trunk = {
        key: value for key, value in weights.items() if not key.startswith(("_fc", "_conv_head", "_bn1."))
    }
    assert fold_batch_norms(trunk, "file").keys() == EfficientNetLite0().state_dict().keys()
    del weights["_blocks.3._bn2.running_var"]
    weights |= {"_blocks.16._bn0.bias": torch.zeros(3), "_blocks.1._se_reduce.weight": torch.zeros(3)}
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(
        CheckpointError, match=r"_blocks\.3\._bn2\.running_var.*_blocks\.16.*_blocks\.1\._se"
    ) as error:
        load_imagenet(tmp_path / "other.pth")
    assert "other.pth" in str(error.value) and "_fc" not in str(error.value)


def test_perceptual_distance_grows_with_the_blur_and_reaches_the_image() -> None:
    image = to_tensor(Image.open(DEMO).convert("RGB"))[None]  # 1 3 64 64
    distance = PerceptualDistance()
    blurred = [F.avg_pool2d(F.pad(image, (k // 2,) * 4, "replicate"), k, 1) for k in (1, 3, 9)]
    near, middle, far = (float(distance(one, image)) for one in blurred)
    assert near < 1e-6 < middle < far
    candidate = blurred[2].clone().requires_grad_()
    distance(candidate, image).sum().backward()
    assert float(distance(blurred[2] - 0.02 * candidate.grad.sign(), image)) < far
    assert all(p.grad is None for p in distance.parameters())
