"""The linear decoder of previews: it recovers a linear decoder, follows the real one, and replaces it in previews."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ldm.data.synthetic.dataset import SyntheticFaces
from ldm.metrics.pixels import psnr
from ldm.pipeline import FacePipeline
from ldm.pipeline.preview_decoder import PreviewDecoder, images_needed

DEMO = Path(__file__).parents[2] / "checkpoints" / "demo"


def test_a_linear_decoder_is_recovered() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(4, 2, 12, 10, generator=g)
    weight, bias = 0.02 * torch.randn(12, 2, 3, 3, generator=g), 0.1 * torch.randn(12, generator=g)
    exact = PreviewDecoder(weight, bias)
    fitted = PreviewDecoder.fit(z, exact(z))
    assert fitted.factor == 2
    new = torch.randn(1, 2, 6, 7, generator=g)  # of another size
    expected = F.pixel_shuffle(F.conv2d(F.pad(new, [1] * 4, mode="replicate"), weight, bias), 2)
    torch.testing.assert_close(fitted(new), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("channels", "size", "count"), [(12, (32, 32), 5), (3, (64, 64), 1)])
def test_small_latents_need_more_images(channels: int, size: tuple[int, int], count: int) -> None:
    assert images_needed(channels, size) == count


def test_it_follows_the_decoder_and_replaces_it_in_previews(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = FacePipeline.from_pretrained(DEMO, device="cpu", precision="float32")
    faces = SyntheticFaces(64, 12, seed=5)
    read: list[int] = []

    def images():
        for number in range(8):
            read.append(number)
            yield faces[number]["image"]

    pipe.fit_preview([])
    assert pipe.sampler.preview_decoder is None
    pipe.fit_preview(images())
    assert len(read) == images_needed(3, (16, 16)) < 8
    fitted = pipe.sampler.preview_decoder
    assert fitted is not None
    unseen = torch.stack([faces[number]["image"] for number in (9, 10, 11)])
    z = pipe.model.encode_first_stage(unseen)
    assert min(psnr(fitted(z), pipe.model.decode_first_stage(z))) > 22

    decoded: list[torch.Tensor] = []
    decode = pipe.model.decode_first_stage
    monkeypatch.setattr(pipe.model, "decode_first_stage", lambda z: decoded.append(z) or decode(z))
    seen: list[torch.Tensor] = []
    face = faces[9]
    style = pipe.read_style(face["image"], face["labels"])
    image = pipe(face["labels"], style, steps=4, preview=lambda decode: seen.append(decode()[0]))
    assert len(decoded) == 1  # the result alone
    assert len(seen) >= 3 and {preview.shape for preview in seen} == {(3, 64, 64)}
    assert min(psnr(seen[-1][None], image[None])) > 20
