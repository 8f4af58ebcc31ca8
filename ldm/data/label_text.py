"""Label maps as short texts, for what carries texts alone: metadata of pictures, a browser."""

import re

import numpy as np
import torch
from torch import Tensor

from ldm.data.labels import UNLABELLED, LabelSet

_FORM = re.compile(r"(\d{1,5})x(\d{1,5}):(\d{1,9}\*\d{1,3}(?:,\d{1,9}\*\d{1,3})*)")
_LONGEST = 20_000_000  # characters: more runs than any map that a model takes


class LabelTextError(ValueError):
    """A text is no label map; the message says what is wrong with it."""


def labels_to_text(labels: Tensor) -> str:
    """Write a label map (H, W) of integers as runs in reading order: `HxW:COUNT*LABEL,COUNT*LABEL,...`.

    Raises:
        ValueError: the map has another number of dimensions, or no pixels.
    """
    if labels.ndim != 2 or not labels.numel():
        raise ValueError(f"got a tensor {tuple(labels.shape)}; wanted a label map (H, W)")
    flat = labels.cpu().numpy().ravel()
    starts = np.concatenate(([0], np.flatnonzero(np.diff(flat)) + 1))
    counts = np.diff(np.concatenate((starts, [flat.size])))
    runs = (f"{count}*{label}" for count, label in zip(counts.tolist(), flat[starts].tolist(), strict=True))
    return f"{labels.shape[0]}x{labels.shape[1]}:{','.join(runs)}"


def labels_from_text(text: str, label_set: LabelSet, size: tuple[int, int]) -> Tensor:
    """Read what `labels_to_text` wrote: uint8 (H, W).

    Args:
        text: from anywhere; nothing in it is trusted.
        label_set: what the labels mean.
        size: the (H, W) it must have.

    Raises:
        LabelTextError: another form, another size, runs that do not fill it, or a label that the set lacks.
    """
    form = _FORM.fullmatch(text) if isinstance(text, str) and len(text) <= _LONGEST else None
    if form is None:
        raise LabelTextError("the mask is not in the form HxW:COUNT*LABEL,...; paint or load it again")
    found = int(form[1]), int(form[2])
    if found != size:
        raise LabelTextError(
            f"the mask has {found[1]} x {found[0]} pixels; wanted {size[1]} x {size[0]}, those of the model"
        )
    counts, labels = np.array([run.split("*") for run in form[3].split(",")], np.int64).T
    if counts.sum() != size[0] * size[1]:
        raise LabelTextError(f"the mask's runs fill {counts.sum()} pixels; wanted {size[0] * size[1]}")
    strangers = labels[(labels >= len(label_set)) & (labels != UNLABELLED)]
    if strangers.size:
        raise LabelTextError(
            f"the mask holds label {strangers[0]}; {label_set.name} has 0..{len(label_set) - 1}"
        )
    return torch.from_numpy(np.repeat(labels, counts).astype(np.uint8).reshape(size))
