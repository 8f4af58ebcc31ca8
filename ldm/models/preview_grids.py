"""Preview images of training: samples next to the images that provide their masks and styles."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ldm.models.latent_networks import Condition, LatentNetworks
from ldm.sampling import sample
from ldm.sampling.noise import draw, seeded


def sample_from_seeds(
    networks: LatentNetworks,
    cond: Condition,
    shape: tuple[int, int, int],
    seeds: list[int],
    options: Mapping[str, Any],
) -> Tensor:
    """Sample images (B, 3, H, W) in [-1, 1] from one seed per image.

    Args:
        networks: the model.
        cond: styles and masks of B images.
        shape: shape of one latent, (C, h, w).
        seeds: one seed per image.
        options: arguments of `ldm.sampling.sample`, such as steps and solver.
    """
    generators = seeded(seeds)
    noise = draw((len(seeds), *shape), generators, networks.device)
    ready = networks.prepare(cond, shape[1:])
    z = sample(
        lambda x, t: networks.apply_model(x, t, ready),
        noise,
        networks.schedule,
        generator=generators,
        **options,
    )
    return networks.decode_first_stage(z).clamp(-1, 1)


def compare_styles(
    networks: LatentNetworks, image: Tensor, cond: Condition, options: Mapping[str, Any]
) -> dict[str, Tensor]:
    """Return columns of images (B, 3, H, W) in [-1, 1]: inputs, and samples of their masks in three styles.

    Args:
        networks: the model.
        image: (B, 3, H, W) in [-1, 1].
        cond: the images' own styles and masks.
        options: arguments of `ldm.sampling.sample`.
    """
    z = networks.encode_first_stage(image)
    styles = {
        "its own style": cond["context"],
        "no style": networks.get_learned_conditioning(torch.zeros_like(image), cond["y"]),
        "neighbor's style": cond["context"].roll(-1, 0),
    }
    columns = {"input": image, "reconstruction": networks.decode_first_stage(z).clamp(-1, 1)}
    seeds, shape = list(range(len(image))), (z.shape[-3], z.shape[-2], z.shape[-1])
    for title, style in styles.items():
        columns[title] = sample_from_seeds(networks, {**cond, "context": style}, shape, seeds, options)
    return columns
