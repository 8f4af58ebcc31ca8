"""Recipes: the same pixels again, from a file; other files and other models are refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from ldm.data.images import encode_png
from ldm.data.labels import CELEBAMASK_HQ
from ldm.pipeline import FacePipeline, Recipe, RecipeError
from ldm.pipeline.recipe import KEY, recipe_text
from tests import small


@pytest.fixture(scope="module")
def pipe() -> FacePipeline:
    return FacePipeline(small.sensitive(small.diffusion()), CELEBAMASK_HQ, (16, 16))


def recipe_of(pipe: FacePipeline, lock: bool) -> Recipe:
    batch = small.batch(2)
    own, other = pipe.read_style(batch["image"], batch["labels"])
    labels = batch["labels"][0].clone()
    labels[:3] = 14
    return Recipe(
        style=own.swap(other, ["hair"]),
        labels=labels,
        options={"steps": 4, "seed": 7, "solver": "ddim", "guidance": 1.5},
        photo=batch["image"][0] if lock else None,
        photo_labels=batch["labels"][0] if lock else None,
        regions=("hair",),
        description={"face": "one", "checkpoint": "small"},
    )


@pytest.mark.parametrize("lock", [True, False])
def test_a_picture_carries_what_makes_it_again(pipe, lock) -> None:
    recipe = recipe_of(pipe, lock)
    image = recipe.make(pipe)
    again = Recipe.from_text(recipe_text(encode_png(image, {KEY: recipe.to_text(pipe)})), pipe)
    assert torch.equal(again.make(pipe), image)
    assert not torch.equal(again.with_seed(8).make(pipe), image)
    assert again.description == recipe.description


def test_another_precision_warns(pipe, recwarn) -> None:
    recipe = recipe_of(pipe, lock=False)
    again = Recipe.from_text(recipe.to_text(pipe), pipe)
    assert again.precision == "float32"
    again.make(pipe)
    recipe.make(pipe)  # a precision that is unknown
    assert not recwarn.list
    half = FacePipeline(pipe.model, CELEBAMASK_HQ, (16, 16), precision="bfloat16")
    with pytest.warns(UserWarning, match="sampled in float32, here in bfloat16"):
        again.make(half)
    assert Recipe.from_text(again.to_text(half), half).precision == "bfloat16"


def test_a_recipe_stores_numbers_of_numpy(pipe) -> None:
    options = {"seed": np.int64(7), "guidance": {"hair": np.float32(1.5)}, "guidance_interval": (0.5, 5)}
    text = replace(recipe_of(pipe, lock=False), options=options).to_text(pipe)
    again = Recipe.from_text(text, pipe)
    assert again.options == {"seed": 7, "guidance": {"hair": 1.5}, "guidance_interval": [0.5, 5]}


def test_a_recipe_of_an_earlier_version_is_read(pipe) -> None:
    recipe = recipe_of(pipe, lock=True)
    record = json.loads(recipe.to_text(pipe))
    record |= {"said": record.pop("description"), "how": record.pop("options")}
    del record["precision"]
    again = Recipe.from_text(json.dumps(record), pipe)
    assert (again.description, again.options) == (recipe.description, recipe.options)


def test_previews_come_at_every_step_and_end_at_the_picture(pipe) -> None:
    seen: list[torch.Tensor] = []
    recipe = recipe_of(pipe, lock=False)
    image = recipe.make(pipe, preview=lambda decode: seen.append(decode()[0]))
    assert len(seen) == 4 and all(one.shape == image.shape for one in seen)
    # The last step of DDIM ends at what the network expects there, up to the last trace of noise.
    another = recipe.with_seed(8).make(pipe)
    assert float((seen[-1] - image).abs().mean()) < 0.1 * float((seen[-1] - another).abs().mean())


def test_an_exception_of_the_progress_ends_the_sampling(pipe) -> None:
    steps: list[int] = []

    def stop(done: int, total: int) -> None:
        steps.append(done)
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipe_of(pipe, lock=True).make(pipe, stop)
    assert steps == [1, 2]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "something else"}, "has no recipe from the studio"),
        ({"model": "0123456789abcdef"}, "belongs to other weights"),
        ({"labels": "16x16:256*77"}, "label 77"),
        ({"labels": "8x8:64*1"}, "8 x 8 pixels"),
        ({"options": {"steps": 10**9}}, "steps must be in"),
        ({"options": {"steps": "4"}}, "must be integers"),
        ({"options": {"progress": 1}}, "unknown options: progress"),
        ({"style": {"shape": [19, 8], "codes": "AAAA"}}, "damaged"),
        ({"style": None}, "damaged"),
        ({"regions": ["beard"]}, "no region 'beard'"),
        ({"precision": "float8"}, "precision must be one of float32"),
        ({"photo": "AAAA"}, "damaged"),
    ],
)
def test_changed_recipes_are_refused_in_a_sentence(pipe, change, said) -> None:
    text = json.dumps(json.loads(recipe_of(pipe, lock=True).to_text(pipe)) | change)
    with pytest.raises(RecipeError, match=said):
        Recipe.from_text(text, pipe)


def test_pictures_without_a_recipe_are_refused(pipe) -> None:
    with pytest.raises(RecipeError, match="downloaded from the studio"):
        recipe_text(encode_png(torch.zeros(3, 8, 8)))
    with pytest.raises(RecipeError, match="no recipe"):
        Recipe.from_text('{"task": "swap"}', pipe)
