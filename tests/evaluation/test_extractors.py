from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, Dinov2Config, Dinov2Model

from ldm.checkpoints.errors import CheckpointError
from ldm.data.labels import CELEBAMASK_HQ, CITYSCAPES_TRAIN
from ldm.evaluation.extractors import Extractor, clip, dinov2, efficientnet, inception, resized
from ldm.evaluation.metric_networks import load_metric_networks
from ldm.modules.efficientnet import imagenet_file, load_imagenet
from ldm.parsing import FaceParser
from ldm.targets import ConfigError
from tests import small

CPU = torch.device("cpu")


class Layers(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, 2)


class Scripted(nn.Module):
    """A network with the interface of StyleGAN's Inception file."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def test_resizing_equals_pillows_in_floating_point() -> None:
    image = torch.rand(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    for side in (23, 97):
        channels = [
            Image.fromarray(c.numpy()).resize((side, side), Image.Resampling.BICUBIC) for c in image[0]
        ]
        expected = torch.from_numpy(np.stack([np.asarray(channel) for channel in channels]))
        torch.testing.assert_close(resized(image, side)[0], expected, atol=2e-5, rtol=0)


def test_inception_input_is_that_of_clean_fid(tmp_path: Path) -> None:
    path = tmp_path / "inception.pt"
    with pytest.warns(DeprecationWarning):
        torch.jit.script(Scripted()).save(str(path))
    found = inception(str(path), CPU).extract(
        torch.tensor([-1.0, 0.0, 1.0])[:, None, None, None].expand(3, 3, 16, 16)
    )
    expected = torch.tensor([-1.0, (127.5 - 128) / 128, 127 / 128])[:, None].expand(3, 12)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_other_files_than_inception_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pt").write_bytes(b"PK nothing")
    with pytest.raises(CheckpointError, match=r"a\.pt: expected inception-2015-12-05.pt"):
        inception(str(tmp_path / "a.pt"), CPU)


def transformer(kind: str, folder: Path) -> Path:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    if kind == "dinov2":
        network: nn.Module = Dinov2Model(Dinov2Config(**sizes, image_size=28, patch_size=14, mlp_ratio=2))
    else:
        config = CLIPVisionConfig(
            **sizes, intermediate_size=32, image_size=28, patch_size=14, projection_dim=12
        )
        network = CLIPVisionModelWithProjection(config)
    network.save_pretrained(folder)
    return folder


def test_dinov2_features_are_the_class_token(tmp_path: Path) -> None:
    extractor = dinov2(str(transformer("dinov2", tmp_path)), CPU)
    images = small.batch(3, 32)["image"]
    found = extractor.extract(images)
    assert found.shape == (3, 16)
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, :, None, None]
    pixels = ((resized(images, 224).clamp(-1, 1) + 1) / 2 - mean) / deviation
    with torch.no_grad():
        expected = Dinov2Model.from_pretrained(tmp_path).eval()(pixel_values=pixels).last_hidden_state[:, 0]
    torch.testing.assert_close(found, expected)


def test_clip_features_are_normalized_embeddings(tmp_path: Path) -> None:
    found = clip(str(transformer("clip", tmp_path)), CPU).extract(small.batch(3, 32)["image"])
    assert found.shape == (3, 12)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    assert not torch.allclose(found[0], found[1])


def test_features_are_cached_by_content(tmp_path: Path) -> None:
    calls = []

    def features(images: Tensor) -> Tensor:
        calls.append(len(images))
        return images.mean((2, 3))

    extractor = Extractor("mean", features, "1")
    images = small.batch(40, 16)["image"]
    first = extractor.extract_cached(lambda: images, tmp_path)
    assert calls == [32, 8] and first.shape == (40, 3)
    assert torch.equal(extractor.extract_cached(lambda: images, tmp_path), first)
    assert calls == [32, 8]
    (file,) = tmp_path.glob("mean_*.safetensors")
    file.write_bytes(b"damaged")
    assert torch.equal(extractor.extract_cached(lambda: images, tmp_path), first)
    extractor.extract_cached(lambda: images.flip(0), tmp_path)
    Extractor("mean", features, "2").extract_cached(lambda: images, tmp_path)
    assert len(calls) == 8 and len(list(tmp_path.glob("*.safetensors"))) == 3


def test_metric_networks_are_found_by_name_and_in_folders(tmp_path: Path) -> None:
    named = transformer("dinov2", tmp_path / "my dino")
    transformer("clip", tmp_path / "judges/clip")
    networks = load_metric_networks(
        tmp_path / "judges", {"dinov2": str(named), "parser": "none"}, CPU, CELEBAMASK_HQ
    )
    assert set(networks.extractors) == {"dinov2", "clip", "efficientnet"}
    assert set(networks.missing) == {"lpips", "inception", "parser"}
    assert str(tmp_path / "judges/alexnet-owt-7be5be79.pth") in networks.missing["lpips"]
    assert "parser=none" in networks.missing["parser"]
    with pytest.raises(ConfigError, match="unknown metric network 'dino'; available: lpips"):
        load_metric_networks(tmp_path, {"dino": "x"}, CPU, CELEBAMASK_HQ)
    for name in ("lpips", "inception", "clip", "parser"):
        with pytest.raises(CheckpointError, match="nowhere"):
            load_metric_networks(tmp_path / "judges", {name: str(tmp_path / "nowhere")}, CPU, CELEBAMASK_HQ)


def test_bundled_face_parser_is_the_default(tmp_path: Path) -> None:
    networks = load_metric_networks(tmp_path, {}, CPU, CELEBAMASK_HQ)
    bundled = FaceParser.from_pretrained(device="cpu")
    assert networks.parser is not None
    image = small.batch(1, 64)["image"][0]
    assert torch.equal(networks.parser.parse(image), bundled.parse(image))
    streets = load_metric_networks(tmp_path, {}, CPU, CITYSCAPES_TRAIN)
    assert streets.parser is None and "main.py -b configs/face-parser" in streets.missing["parser"]


def test_efficientnet_features_are_the_mean_of_its_last_feature_map() -> None:
    extractor = efficientnet(str(imagenet_file()), CPU)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = extractor.extract(images)
    expected = load_imagenet()(resized(images, 224).clamp(-1, 1))[-1].mean((2, 3))
    assert found.shape == (2, 320)
    torch.testing.assert_close(found, expected.detach())
