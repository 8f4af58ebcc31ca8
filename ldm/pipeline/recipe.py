"""Recipe: all that one picture is made from, as a value and as a text that a PNG carries."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldm.checkpoints.config_files import parse_json
from ldm.data.images import ImageError, encode_png, open_image, read_rgb, to_tensor
from ldm.data.label_text import labels_from_text, labels_to_text
from ldm.pipeline.face_pipeline import FacePipeline
from ldm.pipeline.options import Preview, Progress, SamplingOptions, sampling
from ldm.pipeline.style_code import StyleCode

FORMAT = "sca-dm recipe 1"
KEY = "sca-dm"  # of the text in a PNG's metadata
KEPT = ("steps", "solver", "spacing", "eta", "seed", "guidance", "null", "guidance_interval")


class RecipeError(ValueError):
    """A text is no recipe, or one of another model; the message says which."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """What one picture is made from. The same recipe, model and machine give the same pixels.

    Attributes:
        style: the looks.
        labels: (H, W), the shapes.
        how: how to sample; of `SamplingOptions` those in KEPT.
        photo: (3, H, W) in [-1, 1] with 8 bits a value, if its pixels stay outside of `regions`; else None.
        photo_labels: (H, W), the photo's own shapes.
        regions: what may change of the photo.
        said: what a person wants to know of it, by name; nothing is made from this.
    """

    style: StyleCode
    labels: Tensor
    how: SamplingOptions
    photo: Tensor | None = None
    photo_labels: Tensor | None = None
    regions: tuple[str, ...] = ()
    said: Mapping[str, Any] = field(default_factory=dict)

    def make(
        self, pipe: FacePipeline, progress: Progress | None = None, preview: Preview | None = None
    ) -> Tensor:
        """Return the picture (3, H, W) in [-1, 1], on the CPU; raises what the pipeline raises."""
        how: SamplingOptions = {**self.how, "progress": progress, "preview": preview}
        if self.photo is None or self.photo_labels is None:
            return pipe(self.labels, self.style, **how).cpu()
        return pipe.edit(
            self.photo, self.photo_labels, self.style, regions=self.regions, new_labels=self.labels, **how
        ).cpu()

    def with_seed(self, seed: int) -> Recipe:
        """Return the same with other noise."""
        return replace(self, how={**self.how, "seed": seed})

    def to_text(self, pipe: FacePipeline) -> str:
        """Write it as JSON, for the model that made the picture."""
        codes = self.style.codes.numpy().astype("<f4")
        facts: dict[str, Any] = {
            "format": FORMAT,
            "model": pipe.name,
            "said": dict(self.said),
            "how": self.how,
            "regions": list(self.regions),
            "labels": labels_to_text(self.labels),
            "style": {"shape": list(codes.shape), "codes": base64.b64encode(codes.tobytes()).decode()},
        }
        if self.photo is not None and self.photo_labels is not None:
            facts["photo"] = base64.b64encode(encode_png(self.photo)).decode()
            facts["photo_labels"] = labels_to_text(self.photo_labels)
        return json.dumps(facts)

    @classmethod
    def from_text(cls, text: str, pipe: FacePipeline) -> Recipe:
        """Read what `to_text` wrote; nothing in it is trusted.

        Raises:
            RecipeError: something else, a damaged text, or the recipe of another model.
        """
        try:
            facts = parse_json(text)
            if not isinstance(facts, dict) or facts.get("format") != FORMAT:
                raise RecipeError("this picture carries no recipe of the studio")
            if facts["model"] != pipe.name:
                said = facts.get("said") or {}
                raise RecipeError(
                    f"this recipe belongs to other weights ({said.get('checkpoint', facts['model'])}, "
                    f"{said.get('weights', '?')}); start the studio with those to get the same picture"
                )
            return cls(
                style=_style(facts["style"], pipe),
                labels=labels_from_text(facts["labels"], pipe.label_set, pipe.size),
                how=_options(facts["how"]),
                photo=_photo(facts["photo"], pipe) if "photo" in facts else None,
                photo_labels=labels_from_text(facts["photo_labels"], pipe.label_set, pipe.size)
                if "photo" in facts
                else None,
                regions=tuple(_known(facts["regions"], pipe)),
                said=dict(facts.get("said") or {}),
            )
        except RecipeError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecipeError(f"the recipe in this picture is damaged ({error})") from error


def recipe_text(picture: bytes) -> str:
    """Return the text of the recipe that a PNG carries, unread.

    Raises:
        RecipeError: it carries none. ImageError: it is no PNG.
    """
    with open_image(picture, ("PNG",), "the file") as image:
        image.load()  # a text may stand behind the pixels
        text = image.info.get(KEY)
    if not isinstance(text, str):
        raise RecipeError("this picture carries no recipe; wanted a PNG that was downloaded from the studio")
    return text


def read_recipe(picture: bytes, pipe: FacePipeline) -> Recipe:
    """Read the recipe that a PNG carries.

    Raises:
        RecipeError: it carries none, or one of another model. ImageError: it is no PNG.
    """
    return Recipe.from_text(recipe_text(picture), pipe)


def said_in(text: str) -> Mapping[str, Any]:
    """Return what a recipe's text says to people, empty where it is none; needs no model."""
    try:
        said = parse_json(text)["said"]
    except (ValueError, KeyError, TypeError):
        return {}
    return said if isinstance(said, dict) else {}


def _style(facts: Mapping[str, Any], pipe: FacePipeline) -> StyleCode:
    codes = np.frombuffer(base64.b64decode(facts["codes"], validate=True), "<f4").reshape(facts["shape"])
    return StyleCode(torch.from_numpy(codes.copy()), pipe.label_set, pipe.encoder)


def _photo(text: str, pipe: FacePipeline) -> Tensor:
    with open_image(base64.b64decode(text, validate=True), ("PNG",), "the photo in the recipe") as photo:
        if (photo.height, photo.width) != pipe.size:
            raise ImageError(f"the photo in the recipe has {photo.width} x {photo.height} pixels")
        return to_tensor(read_rgb(photo))


def _options(how: Mapping[str, Any]) -> SamplingOptions:
    if not set(how) <= set(KEPT):
        raise RecipeError(f"the recipe holds unknown options: {', '.join(sorted(set(how) - set(KEPT)))}")
    if not isinstance(how.get("seed", 0), int) or not isinstance(how.get("steps", 20), int):
        raise RecipeError("the recipe's seed and steps must be whole numbers")
    if isinstance(how.get("guidance"), float) and not math.isfinite(how["guidance"]):
        raise RecipeError("the recipe's guidance is not a number")
    options: SamplingOptions = {**how}  # type: ignore[typeddict-item]
    sampling(**options)
    return options


def _known(regions: Any, pipe: FacePipeline) -> list[str]:
    pipe.label_set.indices(regions)
    return list(regions)
