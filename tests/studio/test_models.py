"""The two kinds of weights of one file, and recipes that name theirs."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch

from ldm.checkpoints.io import write_checkpoint
from ldm.data.faces import Face
from ldm.studio.models import Models
from ldm.studio.session import RegionEdit, SampleRequest, Session
from tests import small

OPTIONS = Namespace(config=None, device="cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Models:
    config = small.diffusion(use_ema=True)
    model = small.sensitive(config)
    with torch.no_grad():
        for parameter in model.unet.parameters():
            parameter.mul_(1.1)  # the averages stay behind
    folder: Path = tmp_path_factory.mktemp("models") / "small"
    write_checkpoint(folder, model.state_dict(), {"model": config})
    return Models(str(folder), OPTIONS)


def face(index: int) -> Face:
    batch = small.batch(2)
    return Face(f"face {index}", batch["image"][index], batch["labels"][index])


def request(**changes) -> SampleRequest:
    part = RegionEdit(("hair",), face(1))
    arguments = {
        "parts": (part,),
        "random_face": False,
        "lock": False,
        "options": {"steps": 2, "seed": 5},
        **changes,
    }
    return SampleRequest(face=face(0), labels=face(0).labels, **arguments)


def test_averaged_and_last_weights_make_different_pictures(models) -> None:
    assert models.kinds == ("ema", "raw")
    pictures = [
        request().recipes(models.get(kind), "small")[0].make(models.pipe) for kind in ("ema", "raw", "ema")
    ]
    assert torch.equal(pictures[0], pictures[2]) and not torch.equal(pictures[0], pictures[1])
    with pytest.raises(ValueError, match="available: ema and raw"):
        models.get("best")


def test_previews_are_fitted_for_both_kinds_of_weights(models) -> None:
    models.get("ema")
    models.fit_previews(lambda: iter([face(0).image, face(1).image]))
    for kind in ("ema", "raw", "ema"):
        assert models.get(kind).sampler.preview_decoder is not None
    models.fit_previews(tuple)
    assert models.get("raw").sampler.preview_decoder is None


def test_parts_variants_and_strips_become_recipes(models) -> None:
    pipe = models.get("ema")
    three = request(variants=3).recipes(pipe, "small")
    assert [recipe.options["seed"] for recipe in three] == [5, 6, 7]
    own = pipe.read_style(face(0).image, face(0).labels)
    other = pipe.read_style(face(1).image, face(1).labels)
    assert torch.equal(three[0].style["hair"], other["hair"]) and torch.equal(
        three[0].style["nose"], own["nose"]
    )
    strip = request(frames=3).recipes(pipe, "small")
    assert torch.equal(strip[0].style.codes, own.codes) and torch.equal(
        strip[2].style.codes, three[0].style.codes
    )
    assert torch.allclose(strip[1].style["hair"], (own["hair"] + other["hair"]) / 2)
    nothing = request(parts=(), random_face=True).recipes(pipe, "small")[0]
    assert torch.equal(nothing.style.codes, pipe.null_style(face(0).labels).codes)
    half = request(parts=(RegionEdit(("hair",), face(1), 0.5), RegionEdit(("nose",), None))).recipes(
        pipe, "small"
    )[0]
    assert torch.allclose(half.style["hair"], strip[1].style["hair"])
    assert torch.equal(half.style["nose"], pipe.null_style(face(0).labels)["nose"])


def test_where_nothing_would_change_it_says_so() -> None:
    for changes in ({"parts": (), "lock": True}, {"parts": (), "frames": 4}):
        with pytest.raises(ValueError, match="nothing would change"):
            request(**changes).check()
    request(parts=(), lock=False).check()  # the model's own picture of the face
    session = Session(face(0))
    with pytest.raises(ValueError, match="reference"):
        session.with_selection(["hair"], random=False, amount=1)
    assert session.with_selection([], random=False, amount=1) == ()
