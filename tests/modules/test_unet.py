"""The UNet beyond what the golden cases show: the split, both forms of mask attention, every option."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from ldm.data.labels import one_hot
from ldm.modules.attention import StyleAttention, StyleLookup, StyleTokens
from ldm.modules.region_mask import RegionMask
from ldm.modules.unet import UNet
from ldm.targets import ConfigError, instantiate_from_config
from tests.small import randomized

SMALL = {
    "image_size": 8,
    "in_channels": 3,
    "out_channels": 3,
    "model_channels": 32,
    "channel_mult": [1, 2],
    "num_res_blocks": 1,
    "attention_resolutions": [1, 2],
    "num_head_channels": 16,
    "context_dim": 12,
    "num_classes": 5,
    "use_mask_attn": True,
}


def inputs(size: tuple[int, int] = (8, 8), batch: int = 2) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(1)
    labels = torch.randint(5, (batch, 4 * size[0], 4 * size[1]), generator=g)
    x, style = torch.randn(batch, 3, *size, generator=g), torch.randn(batch, 5, 12, generator=g)
    return x, torch.randint(1000, (batch,), generator=g), style, one_hot(labels, 5)


def general_form(
    attention: StyleAttention, x: Tensor, style: Tensor, mask: Tensor, size: tuple[int, int]
) -> Tensor:
    """Mask attention as SPEC.md words it: logits of other regions become the most negative finite value."""
    q, k, v = attention.to_q(x), attention.to_k(style), attention.to_v(style)
    q, k, v = (z.unflatten(2, (attention.heads, -1)).transpose(1, 2) for z in (q, k, v))
    logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    allowed = torch.nn.functional.interpolate(mask, size).flatten(2).transpose(1, 2)[:, None]  # B 1 N R
    logits = logits.masked_fill(allowed == 0, torch.finfo(logits.dtype).min)
    return attention.to_out((logits.softmax(-1) @ v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("kind", ["one-hot", "with unmarked pixels", "zero", "two regions at a pixel"])
def test_mask_attention_is_the_general_form(kind: str) -> None:
    attention = randomized(StyleAttention(32, 12, heads=4, masked=True)).double()
    _, _, style, mask = inputs()
    style, mask = style.double(), mask.double()
    if kind == "with unmarked pixels":
        mask[:, :, :16] = 0
    elif kind == "zero":
        mask[:] = 0
    elif kind == "two regions at a pixel":
        mask[:, 1] = mask[:, 2] = 1
    x = torch.randn(2, 64, 32, dtype=torch.float64)
    conditioning = attention.condition(style, RegionMask(mask), (8, 8))
    is_lookup = kind != "two regions at a pixel"
    assert isinstance(conditioning, StyleLookup if is_lookup else StyleTokens)
    found = conditioning.values if is_lookup else attention(x, conditioning)
    torch.testing.assert_close(found, general_form(attention, x, style, mask, (8, 8)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("area", [False, True])
def test_unlabeled_pixels_attend_to_the_mean_code_in_every_precision(area: bool, dtype: torch.dtype) -> None:
    attention = randomized(StyleAttention(32, 12, heads=4, masked=True))
    x, _, style, mask = inputs()
    mask[:, 1] = mask[:, 2] = 1  # not exclusive
    mask[:, :, :16] = 0
    pixels = torch.randn(len(x), 64, 32)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = attention(pixels, attention.condition(style, RegionMask(mask, area), (8, 8)))
    mean = attention.to_out(attention.to_v(style).mean(1, keepdim=True))
    tolerance = 1e-6 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(found[:, :32].float(), mean.expand(-1, 32, -1), rtol=0, atol=tolerance)
    assert (found[:, 32:].float() - mean).abs().amax() > 0.1


def test_an_empty_batch_has_an_empty_result() -> None:
    unet = UNet(**SMALL).eval()
    x, t, style, mask = (tensor[:0] for tensor in inputs())
    assert unet(x, t, style, mask).shape == (0, 3, 8, 8)


def test_mask_attention_appends_no_logits() -> None:
    x, t, style, mask = inputs()
    mask[:, 1] = 1
    for masked, count in ((True, 0), (False, 7)):
        unet = UNet(**{**SMALL, "use_mask_attn": masked})
        logits: list[Tensor] = []
        unet.denoise(x, t, unet.condition(style, mask, (8, 8)), logits)
        assert len(logits) == count


def test_area_masks_average_the_values_of_the_regions_in_a_pixel() -> None:
    attention = randomized(StyleAttention(32, 12, heads=4, masked=True)).double()
    _, _, style, mask = inputs()
    style, mask = style.double(), mask.double()
    mask[:, :, :6] = 0  # part of the second row of 4x4 cells is marked
    found = attention.condition(style, RegionMask(mask, area=True), (8, 8)).values
    values = attention.to_out(attention.to_v(style))  # B R C
    none = attention.to_out(attention.to_v(style).mean(1))
    cells = mask.unflatten(3, (8, 4)).unflatten(2, (8, 4)).mean((3, 5))  # B R 8 8
    expected = torch.einsum("brij,brc->bijc", cells, values)
    expected = expected + (1 - cells.sum(1))[..., None] * none[:, None, None]
    torch.testing.assert_close(found, expected.flatten(1, 2))


def test_area_masks_of_whole_pixels_equal_nearest_neighbor() -> None:
    unet = randomized(UNet(**SMALL, area_masks=True))
    nearest = UNet(**SMALL).eval()
    nearest.load_state_dict(unet.state_dict())
    x, t, style, mask = inputs()
    coarse = mask[:, :, ::8, ::8].repeat_interleave(8, 2).repeat_interleave(8, 3)
    with torch.no_grad():
        torch.testing.assert_close(unet(x, t, style, coarse), nearest(x, t, style, coarse))
        assert (unet(x, t, style, mask) - nearest(x, t, style, mask)).abs().max() > 1e-3


@pytest.mark.parametrize("masked", [True, False])
def test_condition_then_denoise_is_forward_at_every_step(masked: bool) -> None:
    unet = randomized(UNet(**{**SMALL, "use_mask_attn": masked}))
    x, t, style, mask = inputs()
    with torch.no_grad():
        conditioning = unet.condition(style, mask, (8, 8))
        for step in (t, t // 2):
            assert torch.equal(unet.denoise(x, step, conditioning), unet(x, step, style, mask))


@pytest.mark.parametrize(
    "options",
    [
        {"use_scale_shift_norm": True},
        {"resblock_updown": True},
        {"transformer_depth": 2},
        {"num_head_channels": -1, "num_heads": 2},
        {"dropout": 0.3},
        {"attention_resolutions": []},
        {"style_grid": 2, "style_input": True},
        {"channel_mult": [1, 2, 2], "num_res_blocks": 2},
    ],
    ids=str,
)
def test_every_option_runs_and_every_used_parameter_learns(options: dict) -> None:
    unet = randomized(UNet(**{**SMALL, **options}))
    x, t, style, mask = inputs()
    mask[:, 1] = 1  # not one-hot, so that queries and keys count as well
    out = unet(x, t, style, mask)
    assert out.shape == x.shape
    out.square().sum().backward()
    idle = [
        name
        for name, p in unet.named_parameters()
        if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert idle == []


def test_scale_shift_doubles_the_time_embedding_and_dropout_drops() -> None:
    x, t, style, mask = inputs()
    plain, scaled = UNet(**SMALL), UNet(**{**SMALL, "use_scale_shift_norm": True})
    widths = [unet.input_blocks[1][0].emb_layers[1].out_features for unet in (plain, scaled)]
    assert widths[1] == 2 * widths[0]
    dropping = randomized(UNet(**{**SMALL, "dropout": 0.5})).train()
    assert not torch.equal(dropping(x, t, style, mask), dropping(x, t, style, mask))


def test_activation_checkpointing_has_the_same_gradients() -> None:
    gradients = []
    for use_checkpoint in (False, True, "cheap"):
        unet = randomized(UNet(**{**SMALL, "use_checkpoint": use_checkpoint})).train()
        x, t, style, mask = inputs()
        unet(x, t, style, mask).square().mean().backward()
        gradients.append({name: p.grad for name, p in unet.named_parameters() if p.grad is not None})
    for recomputed in gradients[1:]:
        assert gradients[0].keys() == recomputed.keys()
        for name, grad in gradients[0].items():
            torch.testing.assert_close(recomputed[name], grad, msg=name)


def kept_bytes(use_checkpoint: bool | str) -> int:
    """Return the bytes that a pass keeps for its backward pass, parameters left out."""
    unet = randomized(UNet(**{**SMALL, "use_checkpoint": use_checkpoint})).train()
    conditioning = unet.condition(*inputs()[2:], (8, 8))
    own = {p.untyped_storage().data_ptr() for p in unet.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = unet.denoise(*inputs()[:2], conditioning)
    assert out.requires_grad
    return sum(kept.values())


def test_recomputing_everything_keeps_less() -> None:
    assert kept_bytes(True) < 0.5 * kept_bytes(False)


def test_cheap_recomputation_repeats_no_convolution_and_no_product() -> None:
    operations = []
    for use_checkpoint in (False, "cheap", True):
        unet = randomized(UNet(**{**SMALL, "use_checkpoint": use_checkpoint})).train()
        with FlopCounterMode(display=False) as counter:
            unet(*inputs()).square().mean().backward()
        operations.append(counter.get_total_flops())
    assert operations[0] == operations[1] < operations[2]


def test_a_wrong_recomputation_is_refused() -> None:
    with pytest.raises(ValueError, match="must be true, false or cheap"):
        UNet(**{**SMALL, "use_checkpoint": "norms"})


def test_non_square_latents_and_a_batch_alike() -> None:
    unet = randomized(UNet(**SMALL))
    x, t, style, mask = inputs((8, 16), batch=3)
    with torch.no_grad():
        together = unet(x, t, style, mask)
        alone = unet(x[1:2], t[1:2], style[1:2], mask[1:2])
    assert together.shape == (3, 3, 8, 16)
    torch.testing.assert_close(alone[0], together[1], rtol=1e-4, atol=1e-5)


def test_the_encoder_sees_the_mask_through_attention_alone() -> None:
    unet = randomized(UNet(**{**SMALL, "attention_resolutions": []}))
    _, _, style, mask = inputs()
    conditioning = unet.condition(style, mask, (8, 8))
    assert all(part is None for stage in conditioning.encoder for part in stage)
    assert all(stage[0] is not None for stage in conditioning.decoder)


def test_the_style_input_adds_a_convolution_of_each_pixels_style() -> None:
    plain = {**SMALL, "style_grid": 2, "area_masks": True}
    without = randomized(UNet(**plain)).double()
    unet = UNet(**plain, style_input=True).double()
    missing = unet.load_state_dict(without.state_dict(), strict=False).missing_keys
    assert missing == ["input_blocks.0.1.conv.weight", "input_blocks.0.1.conv.bias"]
    x, t, style, mask = (value.double() for value in inputs())
    assert torch.equal(unet(x, t, style, mask), without(x, t, style, mask))  # starts as the identity
    layer = unet.input_blocks[0][1]
    torch.nn.init.normal_(layer.conv.weight)
    mixed = RegionMask(mask, True, 2, exclusive=True).interpolate_codes(style.reshape(2, -1, 3), (8, 8))
    expected = layer.conv(mixed.transpose(1, 2).unflatten(2, (8, 8)))
    added = unet.condition(style, mask, (8, 8)).encoder[0][1]
    torch.testing.assert_close(added, expected)
    assert not torch.allclose(unet(x, t, style, mask), without(x, t, style, mask))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_heads": 2}, "one of num_head_channels and num_heads"),
        ({"num_head_channels": 48}, "not divisible by num_head_channels = 48"),
        ({"use_spatial_transformer": False}, "use_spatial_transformer must be true"),
        ({"style_input": True}, "needs a style_grid of 2 or more, got 1"),
    ],
)
def test_contradicting_settings(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(**{**SMALL, **options})


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="'use_mask_attention'; did you mean 'use_mask_attn'"):
        instantiate_from_config(
            {"target": "ldm.modules.unet.UNet", "params": {**SMALL, "use_mask_attention": True}}
        )


def test_shapes_that_do_not_fit_are_named() -> None:
    unet = UNet(**SMALL)
    x, t, style, mask = inputs()
    with pytest.raises(ValueError, match="style must have shape"):
        unet(x, t, style[:, :4], mask)
    with pytest.raises(ValueError, match="mask must have shape"):
        unet(x, t, style, mask[:, :4])
    with pytest.raises(ValueError, match="must be multiples of 2"):
        unet(x[..., :7], t, style, mask)


def test_the_image_size_fits_the_levels() -> None:
    with pytest.raises(ValueError, match=r"image_size must be a multiple of 2\b.*got 7"):
        UNet(**{**SMALL, "image_size": 7})
