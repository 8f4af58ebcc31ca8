"""Recipe: all inputs of one sampled image, as a value and as text in PNG metadata."""

from __future__ import annotations

import base64
import json
import math
import warnings
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
from ldm.pipeline.options import (
    STORED_OPTIONS,
    Preview,
    Progress,
    SamplingOptions,
    stored_options,
    validate_options,
)
from ldm.pipeline.pretrained import PRECISIONS
from ldm.pipeline.style_code import StyleCode

FORMAT = "sca-dm recipe 1"
KEY = "sca-dm"  # key of the text in PNG metadata


class RecipeError(ValueError):
    """The text is not a recipe, or belongs to another model."""


@dataclass(frozen=True, eq=False)
class Recipe:
    """All inputs of one image. The same recipe, model, precision and machine reproduce the same pixels.

    Attributes:
        style: style codes.
        labels: label map (H, W).
        options: sampling options, those in STORED_OPTIONS.
        photo: source image (3, H, W) in [-1, 1] with 8 bits per value, for edits; else None.
        photo_labels: label map (H, W) of the source image.
        regions: edited regions of the source image.
        description: descriptive metadata for people; not used for sampling.
        precision: precision in which the image was sampled; None if unknown, as in older recipes.
    """

    style: StyleCode
    labels: Tensor
    options: SamplingOptions
    photo: Tensor | None = None
    photo_labels: Tensor | None = None
    regions: tuple[str, ...] = ()
    description: Mapping[str, Any] = field(default_factory=dict)
    precision: str | None = None

    def make(
        self, pipe: FacePipeline, progress: Progress | None = None, preview: Preview | None = None
    ) -> Tensor:
        """Sample the image (3, H, W) in [-1, 1], on the CPU; raises the errors of the pipeline.

        Warns if the pipeline has another precision than the recipe: pixels will differ slightly.
        """
        if difference := self.precision_difference(pipe):
            warnings.warn(
                f'{difference}; load the model with precision="{self.precision}" for the same pixels',
                stacklevel=2,
            )
        options: SamplingOptions = {**self.options, "progress": progress, "preview": preview}
        if self.photo is None or self.photo_labels is None:
            return pipe(self.labels, self.style, **options).cpu()
        return pipe.edit(
            self.photo, self.photo_labels, self.style, regions=self.regions, new_labels=self.labels, **options
        ).cpu()

    def precision_difference(self, pipe: FacePipeline) -> str | None:
        """Return a sentence if the pipeline has another precision than the recipe, else None."""
        if self.precision in (None, pipe.precision):
            return None
        return f"the recipe was sampled in {self.precision}, here in {pipe.precision}: pixels differ slightly"

    def with_seed(self, seed: int) -> Recipe:
        """Return the recipe with another seed."""
        return replace(self, options={**self.options, "seed": seed})

    def to_text(self, pipe: FacePipeline) -> str:
        """Serialize the recipe as JSON, for the model that sampled the image."""
        codes = self.style.codes.numpy().astype("<f4")
        record: dict[str, Any] = {
            "format": FORMAT,
            "model": pipe.fingerprint,
            "description": dict(self.description),
            "precision": pipe.precision,
            "options": stored_options(self.options),
            "regions": list(self.regions),
            "labels": labels_to_text(self.labels),
            "style": {"shape": list(codes.shape), "codes": base64.b64encode(codes.tobytes()).decode()},
        }
        if self.photo is not None and self.photo_labels is not None:
            record["photo"] = base64.b64encode(encode_png(self.photo)).decode()
            record["photo_labels"] = labels_to_text(self.photo_labels)
        return json.dumps(record)

    @classmethod
    def from_text(cls, text: str, pipe: FacePipeline) -> Recipe:
        """Parse the JSON of `to_text`, as untrusted input.

        Raises:
            RecipeError: not a recipe, a damaged one, or one of another model.
        """
        try:
            record = parse_json(text)
            if not isinstance(record, dict) or record.get("format") != FORMAT:
                raise RecipeError("this image has no recipe from the studio in its metadata")
            if record["model"] != pipe.fingerprint:
                description = _described(record)
                raise RecipeError(
                    f"this recipe belongs to other weights ({description.get('checkpoint', record['model'])}, "
                    f"{description.get('weights', '?')}); start the studio with them to reproduce the image"
                )
            return cls(
                style=_style(record["style"], pipe),
                labels=labels_from_text(record["labels"], pipe.label_set, pipe.size),
                options=_options(record["options"] if "options" in record else record["how"]),
                photo=_photo(record["photo"], pipe) if "photo" in record else None,
                photo_labels=labels_from_text(record["photo_labels"], pipe.label_set, pipe.size)
                if "photo" in record
                else None,
                regions=tuple(_known(record["regions"], pipe)),
                description=dict(_described(record)),
                precision=_precision(record.get("precision")),
            )
        except RecipeError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RecipeError(f"the recipe in this image is damaged ({error})") from error


def recipe_text(png: bytes) -> str:
    """Return the recipe text in the metadata of a PNG, unparsed.

    Raises:
        RecipeError: the image has none. ImageError: not a PNG.
    """
    with open_image(png, ("PNG",), "the file") as image:
        image.load()  # the text chunk may follow the pixels
        text = image.info.get(KEY)
    if not isinstance(text, str):
        raise RecipeError("this image has no recipe in its metadata; use a PNG downloaded from the studio")
    return text


def description_in(text: str) -> Mapping[str, Any]:
    """Return the descriptive metadata in a recipe text without a model; empty if it is not a recipe."""
    try:
        description = _described(parse_json(text))
    except (ValueError, TypeError, AttributeError):
        return {}
    return description if isinstance(description, dict) else {}


def _described(record: Mapping[str, Any]) -> Any:
    """Return the descriptive metadata of a recipe; older ones have it under "said" and the options under "how"."""
    return record.get("description") or record.get("said") or {}


def _style(record: Mapping[str, Any], pipe: FacePipeline) -> StyleCode:
    codes = np.frombuffer(base64.b64decode(record["codes"], validate=True), "<f4").reshape(record["shape"])
    return StyleCode(torch.from_numpy(codes.copy()), pipe.label_set, pipe.encoder_fingerprint)


def _photo(text: str, pipe: FacePipeline) -> Tensor:
    with open_image(base64.b64decode(text, validate=True), ("PNG",), "the photo in the recipe") as photo:
        if (photo.height, photo.width) != pipe.size:
            raise ImageError(f"the photo in the recipe has {photo.width} x {photo.height} pixels")
        return to_tensor(read_rgb(photo))


def _options(stored: Mapping[str, Any]) -> SamplingOptions:
    if not set(stored) <= set(STORED_OPTIONS):
        raise RecipeError(
            f"the recipe contains unknown options: {', '.join(sorted(set(stored) - set(STORED_OPTIONS)))}"
        )
    if not isinstance(stored.get("seed", 0), int) or not isinstance(stored.get("steps", 1), int):
        raise RecipeError("the recipe's seed and steps must be integers")
    if isinstance(stored.get("guidance"), float) and not math.isfinite(stored["guidance"]):
        raise RecipeError("the recipe's guidance must be finite")
    options: SamplingOptions = {**stored}  # type: ignore[typeddict-item]
    validate_options(**options)
    return options


def _precision(name: Any) -> str | None:
    if name is not None and name not in PRECISIONS:
        raise RecipeError(f"the recipe's precision must be one of {', '.join(PRECISIONS)}, got {name!r}")
    return name


def _known(regions: Any, pipe: FacePipeline) -> list[str]:
    pipe.label_set.indices(regions)
    return list(regions)
