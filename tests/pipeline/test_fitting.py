"""What one may hand to the pipeline, what fits what, and what is said where it does not."""

import math

import numpy as np
import pytest
import torch

from ldm.data.labels import CELEBAMASK_HQ
from ldm.pipeline import FacePipeline, StyleCode, StyleError
from ldm.pipeline.edit_masks import soften
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
        ({"solver": "unipc", "order": 4}, "order must be 1, 2 or 3 .*got 4"),
        ({"solver": "unipc", "order": 2.0}, r"order must be .*got 2\.0"),
        ({"order": 2}, "order must be .*got 2 with dpmpp_2m"),
        ({"seed": -1}, "seed must be in .*got -1"),
        ({"seed": 0.5}, r"seed must be an integer .*got 0\.5"),
        ({"seed": [1.5, 2]}, "seed must be an integer or one per image"),
        ({"seed": "12"}, "seed must be an integer .*got '12'"),
        ({"seed": 2**63}, "seed must be in"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 1.5}, r"batch_size must be .*got 1\.5"),
        ({"steps": 10.5}, r"steps must be .*got 10\.5"),
        ({"steps": 20.0}, r"steps must be .*got 20\.0"),
        ({"steps": "abc"}, "steps must be .*got 'abc'"),
        ({"steps": True}, "steps must be .*got True"),
        ({"guidance": "2"}, "guidance must be .*got '2'"),
        ({"guidance": {"hair": None}}, "guidance must be .*None"),
        ({"guidance_interval": 3}, "guidance_interval must be .*got 3"),
        ({"guidance_interval": ("0", "1")}, "guidance_interval must be"),
        ({"cache": "no"}, "cache must be True or False, got 'no'"),
        ({"solver": 3}, "unknown solver 3"),
        ({"eta": "1"}, "eta must be .*got '1'"),
        ({"seed": None}, "seed must be .*got None"),
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
    with pytest.raises(ValueError, match="of images must be multiples of 4 pixels, got 16x10"):
        pipe.autoencode(image[..., :10])
    assert pipe.autoencode(image[..., :4, :12]).shape == (2, 3, 4, 12)
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


@pytest.mark.parametrize(
    ("convert", "message"),
    [
        (lambda image: ((image + 1) * 127.5).byte(), "floating-point .*got torch.uint8"),
        (lambda image: (image + 1) * 127.5, r"in \[-1, 1\], got values from"),
        (lambda image: image[:, :1], "3 channels"),
        (lambda image: image[:0], "at least one of each, got 0 images"),
    ],
    ids=["uint8", "0..255", "one channel", "empty"],
)
def test_every_function_checks_its_images(pipe: FacePipeline, convert, message: str) -> None:
    batch = small.batch(2)
    image, labels = convert(batch["image"]), batch["labels"]
    style = pipe.null_style(labels[0])
    for function in (
        lambda: pipe.read_style(image, labels[: len(image)]),
        lambda: pipe.autoencode(image),
        lambda: pipe.invert(image, labels[: len(image)], steps=1),
        lambda: pipe.edit(image, labels[: len(image)], style, regions=["hair"], steps=1),
    ):
        with pytest.raises(ValueError, match=message):
            function()


def test_images_of_other_floating_point_types_are_converted(pipe: FacePipeline) -> None:
    batch = small.batch(1)
    expected = pipe.autoencode(batch["image"])
    assert torch.equal(pipe.autoencode(batch["image"].double()), expected)
    style = pipe.read_style(batch["image"].double(), batch["labels"])[0]
    assert torch.equal(style.codes, pipe.read_style(batch["image"], batch["labels"])[0].codes)
    overshooting = pipe.autoencode(batch["image"] * 1.1)
    assert overshooting.isfinite().all()


def test_images_are_encoded_in_batches_that_fit(pipe: FacePipeline, monkeypatch) -> None:
    batch = small.batch(3)
    image, labels = batch["image"], batch["labels"]
    found = [pipe.autoencode(image), pipe.invert(image, labels, steps=2)]
    codes = torch.stack([style.codes for style in pipe.read_style(image, labels)])
    sizes: list[int] = []
    for name in ("get_learned_conditioning", "encode_first_stage", "apply_model"):
        function = getattr(pipe.model, name)

        def counted(*given, function=function):
            sizes.append(len(given[0]))
            return function(*given)

        monkeypatch.setattr(pipe.model, name, counted)
    monkeypatch.setattr("ldm.pipeline.image_sampler.free_bytes", lambda device: 1_000_000)
    seen: list[tuple[int, int]] = []
    again = [
        pipe.autoencode(image),
        pipe.invert(image, labels, steps=2, progress=lambda *done: seen.append(done)),
    ]
    torch.testing.assert_close(again, found, atol=1e-3, rtol=1e-3)
    styles = pipe.read_style(image, labels)
    torch.testing.assert_close(torch.stack([style.codes for style in styles]), codes, atol=1e-4, rtol=1e-4)
    pipe.edit(image, labels, styles, regions=["hair"], invert=True, steps=1)
    assert set(sizes) == {1} and seen == [(done, 6) for done in range(1, 7)]


def test_options_without_effect_warn(pipe: FacePipeline, recwarn) -> None:
    batch = small.batch(1)
    style = pipe.null_style(batch["labels"][0])
    with pytest.warns(UserWarning, match="guidance.*: null and guidance_interval"):
        pipe(batch["labels"], style, steps=1, null="zero", guidance_interval=(0, 1))
    recwarn.clear()
    pipe(batch["labels"], style, steps=1, null="zero", guidance_interval=(0, 1), guidance={"hair": 2})
    assert not recwarn.list


def test_regions_of_guidance_are_checked_before_a_style_is_read(pipe: FacePipeline, monkeypatch) -> None:
    batch = small.batch(1)
    style = pipe.null_style(batch["labels"][0])
    monkeypatch.setattr(pipe.model, "get_learned_conditioning", None)
    how = {"regions": ["hair"], "invert": True, "guidance": {"hare": 2}}
    with pytest.raises(ValueError, match="'hare'"):
        pipe.edit(batch["image"], batch["labels"], style, **how)


def test_a_short_schedule_limits_the_steps() -> None:
    pipe = FacePipeline(small.sensitive(small.diffusion(timesteps=20)), CELEBAMASK_HQ, (16, 16))
    batch = small.batch(1)
    style = pipe.null_style(batch["labels"][0])
    seen: list[tuple[int, int]] = []
    pipe(batch["labels"], style, solver="ddim", progress=lambda *done: seen.append(done))
    assert seen[-1] == (20, 20)
    assert pipe.invert(batch["image"], batch["labels"]).shape == (1, 3, 4, 4)
    with pytest.raises(ValueError, match=r"steps must be in \[1, 20\].*got 21"):
        pipe(batch["labels"], style, steps=21)


def test_an_overflowing_decoder_is_no_picture(pipe: FacePipeline, monkeypatch) -> None:
    batch = small.batch(1)
    monkeypatch.setattr(pipe.model, "decode_first_stage", lambda z: z.repeat(1, 1, 4, 4) * math.nan)
    with pytest.raises(ValueError, match="non-finite values; use precision float32"):
        pipe(batch["labels"], pipe.null_style(batch["labels"][0]), steps=1)


def test_the_soft_edge_is_a_mean_of_dilations() -> None:
    area = torch.rand(2, 33, 40, generator=torch.Generator().manual_seed(0)) > 0.98
    for border in (0, 1, 5):
        rings = [
            torch.nn.functional.max_pool2d(area[:, None].float(), 2 * reach + 1, 1, reach)
            for reach in range(border + 1)
        ]
        assert torch.equal(soften(area, border), torch.stack(rings).mean(0))


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
