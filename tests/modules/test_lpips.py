from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchmetrics.functional.image import lpips as reference

from ldm.checkpoints.errors import CheckpointError
from ldm.modules.lpips import LPIPS, NETWORKS, load_lpips
from tests import small


def torchvision_file(kind: str, folder: Path) -> Path:
    """Write random weights under torchvision's names, the classifier's among them."""
    torch.manual_seed(0)
    network = small.randomized(LPIPS(kind))
    weights = {key: value for key, value in network.state_dict().items() if key.startswith("features.")}
    path = folder / f"{kind}.pth"
    torch.save({**weights, "classifier.1.weight": torch.zeros(2, 2)}, path)
    return path


def layers(network: LPIPS) -> nn.Sequential:
    """Return the same layers in torchvision's order."""
    found: list[nn.Module] = []
    for layer in (layer for stage in NETWORKS[network.kind] for layer in stage):
        if len(layer) == 2:
            found.append(nn.MaxPool2d(layer[1], 2))
        else:
            found += [network.features[str(layer[0])], nn.ReLU()]
    return nn.Sequential(*found)


@pytest.mark.parametrize("kind", ["alex", "vgg"])
def test_it_is_what_torchmetrics_computes_where_torchvision_is_there(
    kind: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = load_lpips(torchvision_file(kind, tmp_path))
    monkeypatch.setattr(reference, "_get_tv_model_features", lambda *_: layers(network))
    theirs = reference._LPIPS(net=kind, pretrained=True).eval()
    first, second = small.batch(2, 64)["image"], small.batch(2, 64, seed=2)["image"]
    with torch.no_grad():
        expected = theirs(first, second).flatten()
        ours = network(first, second)
    assert ours.shape == (2, 64, 64)
    torch.testing.assert_close(ours.mean((1, 2)), expected, rtol=1e-4, atol=1e-6)
    assert expected.min() > 1e-3
    assert network(first, first).abs().max() == 0


def test_the_map_tells_where_the_pictures_differ(tmp_path: Path) -> None:
    network = load_lpips(torchvision_file("vgg", tmp_path))
    image = small.batch(1, 64)["image"]
    other = image.clone()
    other[..., 48:] *= -1
    found = network(image, other)
    assert found[..., 48:].mean() > 5 * found[..., :16].abs().mean()


def test_another_networks_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "resnet.pth"
    torch.save({"conv1.weight": torch.zeros(64, 3, 7, 7)}, path)
    with pytest.raises(CheckpointError, match="neither torchvision's AlexNet nor its VGG16"):
        load_lpips(path)
