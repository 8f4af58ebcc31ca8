"""What one may hand to the pipeline, what fits what, and what is said where it does not."""

import math

import numpy as np
import pytest
import torch

from ldm.data.labels import CELEBAMASK_HQ
from ldm.pipeline import FacePipeline, StyleCode, StyleError
from tests import small


@pytest.fixture(scope="module")
def pipe() -> FacePipeline:
    return FacePipeline(small.sensitive(small.diffusion()), CELEBAMASK_HQ, (16, 16))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": [0]}, "1 seeds for 2 images"),
        ({"solver": "dpm"}, "unknown solver 'dpm'; available: ddpm"),
        ({"null": "nought"}, "unknown null 'nought'; available"),
        ({"spacing": "log"}, "unknown spacing 'log'; available: logsnr"),
        ({"sede": 3}, "unknown option 'sede'; available: seed"),
        ({"guidance": {"hare": 2}}, "'hare'; did you mean one of: hair"),
        ({"guidance_interval": (3, 1)}, "with 0 <= low < high"),
        ({"steps": 0}, r"steps must be in \[1, 1000\], got 0"),
        ({"guidance": math.nan}, "guidance must be finite.*got nan"),
        ({"guidance": {"hair": math.inf}}, "guidance must be finite"),
        ({"solver": "ddim", "eta": 1.5}, r"eta must be in \[0, 1\], got 1\.5"),
        ({"eta": 0.5}, "eta has no effect with solver dpmpp_2m"),
        ({"seed": -1}, "seed must be in .*got -1"),
        ({"seed": 0.5}, r"seed must be an integer .*got 0\.5"),
        ({"seed": [1.5, 2]}, "seed must be an integer or one per image"),
        ({"seed": "12"}, "seed must be an integer .*got '12'"),
        ({"seed": 2**63}, "seed must be in"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
    ids=str,
)
def test_options_that_cannot_be(pipe: FacePipeline, options: dict, message: str) -> None:
    batch = small.batch(2)
    with pytest.raises(ValueError, match=message):
        pipe(batch["labels"], pipe.read_style(batch["image"], batch["labels"]), **options)


def test_what_does_not_fit_is_said(pipe: FacePipeline) -> None:
    batch = small.batch(2)
    image, labels = batch["image"], batch["labels"]
    styles = pipe.read_style(image, labels)
    with pytest.raises(ValueError, match="2 label maps and 3 styles"):
        pipe(labels, [*styles, styles[0]])
    with pytest.raises(ValueError, match=r"labels must be in .*got \[77\]"):
        pipe.read_style(image, torch.full_like(labels, 77))
    with pytest.raises(ValueError, match=r"labels must be in .*got \[77\]"):
        pipe(torch.full_like(labels, 77), styles)
    with pytest.raises(ValueError, match="must be multiples of 8 pixels"):
        pipe(labels[:, :12], styles)
    with pytest.raises(ValueError, match=r"must be \(B, 3, H, W\) and \(B, H, W\)"):
        pipe.read_style(image, labels[:, :8])
    with pytest.raises(ValueError, match="non-finite"):
        pipe.read_style(image * torch.nan, labels)
    with pytest.raises(StyleError, match="codes of another model"):
        pipe(labels, StyleCode(torch.zeros(19, 8), pipe.label_set, "another"))
    with pytest.raises(
        ValueError, match=r"new_labels must have the size of the image, \(16, 16\), got \(8, 16\)"
    ):
        pipe.edit(image, labels, styles, regions=["hair"], new_labels=labels[:, :8])
    with pytest.raises(ValueError, match="2 images and 1 label maps and 1 new label maps and 3 styles"):
        pipe.edit(image, labels[0], [*styles, styles[0]], regions=["hair"])
    with pytest.raises(ValueError, match="border must be at least 0 pixels, got -1"):
        pipe.edit(image, labels, styles, regions=["hair"], border=-1)
    with pytest.raises(ValueError, match="must be multiples of 8 pixels"):
        pipe.autoencode(image[..., :12])
    with pytest.raises(ValueError, match="inversion requires solver ddim"):
        pipe.edit(image, labels, styles, regions=["hair"], invert=True, solver="unipc")


def test_what_is_one_serves_all_in_edits(pipe: FacePipeline) -> None:
    batch = small.batch(3)
    image, labels = batch["image"], batch["labels"]
    styles = pipe.read_style(image, labels)
    how = {"regions": ["hair"], "steps": 2, "seed": 0}
    one_by_one = torch.stack([pipe.edit(image[i], labels[0], styles[1], **how) for i in range(3)])
    torch.testing.assert_close(pipe.edit(image, labels[0], styles[1], **how), one_by_one, atol=1e-4, rtol=0)
    maps = torch.stack([pipe.edit(image[0], labels[0], styles[1], new_labels=new, **how) for new in labels])
    together = pipe.edit(image[0], labels[0], styles[1], new_labels=labels, **how)
    torch.testing.assert_close(together, maps, atol=1e-4, rtol=0)
    looks = torch.stack([pipe.edit(image[0], labels[0], style, **how) for style in styles])
    torch.testing.assert_close(pipe.edit(image[0], labels[0], styles, **how), looks, atol=1e-4, rtol=0)
    assert pipe.edit(image[0], labels[:1], styles[1], **how).shape == (1, 3, 16, 16)
    assert pipe.edit(image[0], labels[0], styles[1], **how).shape == (3, 16, 16)


def test_one_photo_is_read_with_many_maps_and_many_with_one(pipe: FacePipeline) -> None:
    batch = small.batch(2)
    image, labels = batch["image"], batch["labels"]
    found = pipe.read_style(image[0], labels)
    assert len(found) == 2
    torch.testing.assert_close(found[1].codes, pipe.read_style(image[0], labels[1]).codes)
    assert len(pipe.read_style(image, labels[0])) == 2
    with pytest.raises(ValueError, match="batch sizes must be equal or 1, got 3 images and 2 label maps"):
        pipe.read_style(small.batch(3)["image"], labels)
    assert pipe.invert(image[0], labels, steps=2).shape == (2, 3, 4, 4)
    with pytest.raises(ValueError, match="one per image, got an empty list"):
        pipe(labels, [])
    with pytest.raises(ValueError, match="non-finite"):
        pipe.autoencode(image * math.nan)


def test_seeds_may_be_numpys(pipe: FacePipeline) -> None:
    batch = small.batch(2)
    styles = pipe.read_style(batch["image"], batch["labels"])
    expected = pipe(batch["labels"], styles, steps=2, seed=3)
    for seed in (np.int64(3), np.array([3, 3])):
        assert torch.equal(pipe(batch["labels"], styles, steps=2, seed=seed), expected)


def test_numbers_that_are_not_finite_are_no_picture(pipe: FacePipeline, monkeypatch) -> None:
    apply_model = pipe.model.apply_model
    monkeypatch.setattr(pipe.model, "apply_model", lambda *given: apply_model(*given) * math.inf)
    batch = small.batch(1)
    with pytest.raises(ValueError, match="non-finite values; use precision float32 or a lower guidance"):
        pipe(batch["labels"], pipe.read_style(batch["image"], batch["labels"]), steps=2)


@pytest.mark.parametrize("options", [{"precision": "float8"}, {"device": "toaster"}], ids=str)
def test_wrong_names_are_said_before_anything_is_loaded(options: dict) -> None:
    with pytest.raises(ValueError, match=r"unknown precision 'float8'; available: auto|got 'toaster'"):
        FacePipeline.from_pretrained("nowhere", **options)


def test_the_null_of_guidance_is_read_in_float32_whatever_the_precision(
    pipe: FacePipeline, monkeypatch
) -> None:
    half = FacePipeline(pipe.model, CELEBAMASK_HQ, (16, 16), precision="bfloat16")
    seen = []
    read = pipe.model.get_learned_conditioning

    def watched(*given):
        seen.append(read(*given))
        return seen[-1]

    batch = small.batch(1)
    style = half.read_style(batch["image"], batch["labels"])
    monkeypatch.setattr(pipe.model, "get_learned_conditioning", watched)
    half(batch["labels"], style, steps=1, guidance=2.0)
    (null,) = seen
    expected = half.null_style(batch["labels"])[0].codes
    torch.testing.assert_close(null[0], expected, atol=1e-6, rtol=0)
    assert null.dtype == torch.float32


def test_a_compiled_steps_result_is_not_what_the_next_call_overwrites(
    pipe: FacePipeline, monkeypatch
) -> None:
    """A captured graph writes each result to the same place, as this stand-in for torch.compile does."""
    from ldm.pipeline.pretrained import compile_step

    model = small.sensitive(small.diffusion())
    place = {}

    def captured(step, **_):
        def replay(*given, **options):
            result = step(*given, **options)
            return place.setdefault("result", torch.empty_like(result)).copy_(result)

        return replay

    batch = small.batch(1)
    styles = pipe.read_style(batch["image"], batch["labels"])
    expected = FacePipeline(model, CELEBAMASK_HQ, (16, 16))(batch["labels"], styles, solver="plms", steps=5)
    monkeypatch.setattr(torch, "compile", captured)
    compile_step(model)
    found = FacePipeline(model, CELEBAMASK_HQ, (16, 16))(batch["labels"], styles, solver="plms", steps=5)
    torch.testing.assert_close(found, expected)
