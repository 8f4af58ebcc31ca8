import pytest
import torch

from ldm.data.labels import one_hot
from ldm.modules.style_encoder import StyleEncoder
from tests.small import randomized

REGIONS = 4
SIZES = {"num_downsample": 3, "num_upsample": 2, "num_feat": 2, "num_mask_channels": REGIONS, "output_dim": 6}


def encoder(**options) -> StyleEncoder:
    return randomized(StyleEncoder(**SIZES, **options)).double()  # type: ignore[return-value]


def face() -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(2)
    labels = torch.randint(REGIONS, (2, 32, 32), generator=g)
    return torch.randn(2, 3, 32, 32, generator=g, dtype=torch.float64), one_hot(labels, REGIONS).double()


def channels_that_reach(model: StyleEncoder, region: int) -> set[int]:
    """Return the regions whose channels of the encoder reach the code of `region`."""
    image, mask = face()
    reached = set()
    for other in range(REGIONS):
        deepest = model.Encoder.enc_layer_1
        kept = deepest[0].bias.detach().clone()
        before = model(image, mask)[:, region]
        with torch.no_grad():
            group = len(kept) // REGIONS
            deepest[0].weight[other * group : (other + 1) * group] *= -1.7
            deepest[0].bias[other * group : (other + 1) * group] += 0.3
        after = model(image, mask)[:, region]
        with torch.no_grad():
            deepest[0].weight[other * group : (other + 1) * group] /= -1.7
            deepest[0].bias.copy_(kept)
        if not torch.allclose(before, after, rtol=0, atol=1e-9):
            reached.add(other)
    return reached


def test_aligned_regions_keep_to_themselves_and_published_ones_do_not() -> None:
    aligned, published = encoder(align_regions=True), encoder()
    assert [channels_that_reach(aligned, region) for region in range(REGIONS)] == [{0}, {1}, {2}, {3}]
    assert any(channels_that_reach(published, region) != {region} for region in range(REGIONS))


def test_shapes_range_and_the_absent_region() -> None:
    model = encoder(align_regions=True)
    image, mask = face()
    mask[:, 2] = 0
    codes = model(image, mask)
    assert codes.shape == (2, REGIONS, model.style_dim) == (2, 4, 12)
    assert codes.abs().max() < 1
    biases = [getattr(model.out, f"out_{j}")[0].bias.view(REGIONS, -1)[2] for j in range(2)]
    torch.testing.assert_close(codes[0, 2], torch.cat(biases).tanh())


def test_sizes_that_do_not_fit_are_named() -> None:
    model = encoder()
    image, mask = face()
    with pytest.raises(ValueError, match="multiple of 8"):
        model(image[..., :20], mask[..., :20])
    for wrong in (mask[:, :3], mask[..., :16]):
        with pytest.raises(ValueError, match=r"mask must have shape \(batch, 4, 32, 32\)"):
            model(image, wrong)
    with pytest.raises(ValueError, match=r"num_upsample must be in .*got 4"):
        StyleEncoder(**{**SIZES, "num_upsample": 4})
