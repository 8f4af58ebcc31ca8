"""High-level inference API: load weights, read and edit styles, sample and edit images."""

from ldm.checkpoints.locate import usable_device
from ldm.pipeline.face_pipeline import FacePipeline
from ldm.pipeline.options import Sampling
from ldm.pipeline.photo import EditedPhoto, Photo, PhotoError
from ldm.pipeline.photo_editor import PhotoEditor
from ldm.pipeline.recipe import Recipe, RecipeError
from ldm.pipeline.style_code import StyleCode, StyleError

__all__ = [
    "EditedPhoto",
    "FacePipeline",
    "Photo",
    "PhotoEditor",
    "PhotoError",
    "Recipe",
    "RecipeError",
    "Sampling",
    "StyleCode",
    "StyleError",
    "usable_device",
]
