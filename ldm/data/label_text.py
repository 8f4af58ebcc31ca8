"""Run-length text encoding of label maps, for image metadata and the browser."""

import re

import numpy as np
import torch
from torch import Tensor

from ldm.data.labels import UNLABELED, LabelSet

_FORM = re.compile(r"(\d{1,5})x(\d{1,5}):(\d{1,9}\*\d{1,3}(?:,\d{1,9}\*\d{1,3})*)")
_LONGEST = 20_000_000  # characters: more runs than any map that a model takes


class LabelTextError(ValueError):
    """A text is not a valid label map."""


def labels_to_text(labels: Tensor) -> str:
    """Encode an integer label map (H, W) as runs in row-major order: `HxW:COUNT*LABEL,COUNT*LABEL,...`.

    Raises:
        ValueError: not two-dimensional, or empty.
    """
    if labels.ndim != 2 or not labels.numel():
        raise ValueError(f"expected a label map (H, W), got shape {tuple(labels.shape)}")
    flat = labels.cpu().numpy().ravel()
    starts = np.concatenate(([0], np.flatnonzero(np.diff(flat)) + 1))
    counts = np.diff(np.concatenate((starts, [flat.size])))
    runs = (f"{count}*{label}" for count, label in zip(counts.tolist(), flat[starts].tolist(), strict=True))
    return f"{labels.shape[0]}x{labels.shape[1]}:{','.join(runs)}"


def labels_from_text(text: str, label_set: LabelSet, size: tuple[int, int]) -> Tensor:
    """Decode the text of `labels_to_text` to uint8 (H, W).

    Args:
        text: untrusted input.
        label_set: label set of the map.
        size: required (H, W).

    Raises:
        LabelTextError: invalid syntax, another size, or an unknown label.
    """
    form = _FORM.fullmatch(text) if isinstance(text, str) and len(text) <= _LONGEST else None
    if form is None:
        raise LabelTextError("the label map is not in the form HxW:COUNT*LABEL,...; paint or load it again")
    found = int(form[1]), int(form[2])
    if found != size:
        raise LabelTextError(
            f"the label map must have {size[1]} x {size[0]} pixels, got {found[1]} x {found[0]} pixels"
        )
    counts, labels = np.array([run.split("*") for run in form[3].split(",")], np.int64).T
    if counts.sum() != size[0] * size[1]:
        raise LabelTextError(
            f"the runs of the label map must fill {size[0] * size[1]} pixels, got {counts.sum()}"
        )
    unknown = labels[(labels >= len(label_set)) & (labels != UNLABELED)]
    if unknown.size:
        raise LabelTextError(
            f"the label map has label {unknown[0]}, expected labels of {label_set.name}, [0, {len(label_set) - 1}]"
        )
    return torch.from_numpy(np.repeat(labels, counts).astype(np.uint8).reshape(size))
