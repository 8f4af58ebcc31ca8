"""StyleCode: how each region of a face looks. Read from a photo, then mixed with others."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from ldm.atomic_files import write_file
from ldm.data.labels import LabelSet

FORMAT = "sca-dm style code 1"


class StyleError(ValueError):
    """Style codes that do not fit each other, the model, or their file."""


@dataclass(frozen=True, eq=False)
class StyleCode:
    """One code per region. Immutable: every operation returns a new one.

    Attributes:
        codes: (R, D), float32, on the CPU.
        label_set: what the R regions are.
        encoder: fingerprint of the style encoder that the codes come from; codes of another mean something else.
    """

    codes: Tensor
    label_set: LabelSet
    encoder: str

    def __post_init__(self) -> None:
        R = len(self.label_set)
        if self.codes.ndim != 2 or len(self.codes) != R:
            raise StyleError(
                f"codes have shape {tuple(self.codes.shape)}; wanted ({R} regions, size of a code)"
            )
        if not self.codes.isfinite().all():
            raise StyleError("codes hold values that are not finite; the photo or the model is damaged")
        # A copy, so that nobody who holds the tensor changes the code.
        object.__setattr__(self, "codes", self.codes.detach().to("cpu", torch.float32, copy=True))

    @property
    def regions(self) -> tuple[str, ...]:
        """The names of the R regions."""
        return self.label_set.regions

    def __getitem__(self, region: str) -> Tensor:
        """Return the code (D,) of a region."""
        return self.codes[self.label_set.index(region)].clone()

    def swap(self, other: "StyleCode", regions: Iterable[str] | None = None) -> "StyleCode":
        """Return this style with `regions` (all, by default) taken from `other`.

        Raises:
            ValueError: an unknown region. StyleError: `other` comes from another model.
        """
        return self._changed(regions, lambda rows: self._fitting(other).codes[rows])

    def lerp(self, other: "StyleCode", amount: float, regions: Iterable[str] | None = None) -> "StyleCode":
        """Return this style moved towards `other`: 0 keeps it, 1 swaps, beyond exaggerates.

        Raises:
            ValueError: an unknown region. StyleError: `other` comes from another model.
        """
        return self._changed(
            regions, lambda rows: torch.lerp(self.codes[rows], self._fitting(other).codes[rows], amount)
        )

    def compose(self, sources: Mapping[str, "StyleCode"]) -> "StyleCode":
        """Return this style with each region named in `sources` taken from its own source."""
        style = self
        for region, source in sources.items():
            style = style.swap(source, [region])
        return style

    def save(self, path: str | Path) -> None:
        """Write the codes as safetensors; a process that is killed meanwhile leaves no half file."""
        facts = {
            "format": FORMAT,
            "encoder": self.encoder,
            "label_set": self.label_set.name,
            "regions": json.dumps(self.regions),
        }
        write_file(path, lambda file: file.write(save({"codes": self.codes}, facts)))

    def _changed(self, regions: Iterable[str] | None, values: Callable[[list[int]], Tensor]) -> "StyleCode":
        rows = self.label_set.indices(self.regions if regions is None else regions)
        codes = self.codes.clone()
        codes[rows] = values(rows)
        return replace(self, codes=codes)

    def _fitting(self, other: "StyleCode") -> "StyleCode":
        check_encoder(other, self.codes.shape, self.encoder)
        return other


def check_encoder(style: StyleCode, shape: tuple[int, ...], encoder: str) -> None:
    """Raise StyleError if `style` is not of this shape and from this encoder."""
    if style.codes.shape != shape or style.encoder != encoder:
        raise StyleError(
            f"style codes {tuple(style.codes.shape)} of encoder {style.encoder}; wanted {tuple(shape)} of "
            f"{encoder}: codes of another model mean nothing to this one; read the style again from its photo"
        )


def load_style(path: str | Path, label_set: LabelSet) -> StyleCode:
    """Read a file of `StyleCode.save`.

    Raises:
        StyleError: missing, damaged, something else, or of other regions than `label_set`.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            facts, names = file.metadata() or {}, list(file.keys())
            if facts.get("format") != FORMAT or names != ["codes"]:
                raise StyleError(f"{path}: not a style code; it is written by StyleCode.save")
            codes = file.get_tensor("codes")
    except (OSError, safetensors.SafetensorError) as error:
        raise StyleError(f"{path}: cannot be read as a style code ({error})") from error
    if facts.get("regions") != json.dumps(label_set.regions):
        raise StyleError(
            f"{path}: a style of {facts.get('label_set')}'s regions; this model knows those of {label_set.name}"
        )
    return StyleCode(codes, label_set, facts.get("encoder", ""))
