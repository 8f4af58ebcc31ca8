"""StyleCode: the appearance of each region of a face, encoded from an image and editable by region."""

import json
import zlib
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
    """Style codes that do not match each other, the model or their file."""


@dataclass(frozen=True, eq=False)
class StyleCode:
    """One style code per region. Immutable: every operation returns a new one.

    Attributes:
        codes: (R, D), float32, on the CPU.
        label_set: names of the R regions.
        encoder_fingerprint: fingerprint of the style encoder; codes of different encoders are incompatible.
    """

    codes: Tensor
    label_set: LabelSet
    encoder_fingerprint: str

    def __post_init__(self) -> None:
        R = len(self.label_set)
        if self.codes.ndim != 2 or len(self.codes) != R:
            raise StyleError(f"codes must have shape ({R} regions, code size), got {tuple(self.codes.shape)}")
        if not self.codes.isfinite().all():
            raise StyleError("codes have non-finite values; the image or the model is damaged")
        # A copy, so that in-place changes of the argument do not affect the code.
        object.__setattr__(self, "codes", self.codes.detach().to("cpu", torch.float32, copy=True))

    @property
    def regions(self) -> tuple[str, ...]:
        """Names of the R regions."""
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
        """Interpolate linearly towards `other`: 0 keeps this style, 1 is `other`, larger values extrapolate.

        Raises:
            ValueError: an unknown region. StyleError: `other` comes from another model.
        """
        return self._changed(
            regions, lambda rows: torch.lerp(self.codes[rows], self._fitting(other).codes[rows], amount)
        )

    def compose(self, sources: Mapping[str, "StyleCode"]) -> "StyleCode":
        """Return this style with the regions in `sources` taken from their sources."""
        style = self
        for region, source in sources.items():
            style = style.swap(source, [region])
        return style

    def save(self, path: str | Path) -> None:
        """Write the codes as safetensors, atomically."""
        metadata = {
            "format": FORMAT,
            "encoder": self.encoder_fingerprint,
            "label_set": self.label_set.name,
            "regions": json.dumps(self.regions),
            "checksum": _checksum(self.codes),
        }
        write_file(path, lambda file: file.write(save({"codes": self.codes}, metadata)))

    def _changed(self, regions: Iterable[str] | None, values: Callable[[list[int]], Tensor]) -> "StyleCode":
        rows = self.label_set.indices(self.regions if regions is None else regions)
        codes = self.codes.clone()
        codes[rows] = values(rows)
        return replace(self, codes=codes)

    def _fitting(self, other: "StyleCode") -> "StyleCode":
        check_encoder(other, self.codes.shape, self.encoder_fingerprint)
        return other


def check_encoder(style: StyleCode, shape: tuple[int, ...], fingerprint: str) -> None:
    """Raise StyleError if `style` is not of this shape and from the encoder with this fingerprint."""
    if style.codes.shape != shape or style.encoder_fingerprint != fingerprint:
        raise StyleError(
            f"style codes must have shape {tuple(shape)} and encoder {fingerprint}, got {tuple(style.codes.shape)} of "
            f"{style.encoder_fingerprint}: codes of another model are incompatible; read the style again from its image"
        )


def load_style(path: str | Path, label_set: LabelSet) -> StyleCode:
    """Read a file written by `StyleCode.save`.

    Raises:
        StyleError: a missing or damaged file, another format, or regions that differ from `label_set`.
    """
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata, names = file.metadata() or {}, list(file.keys())
            if metadata.get("format") != FORMAT or names != ["codes"]:
                raise StyleError(f"{path}: not a style code file; write one with StyleCode.save")
            codes = file.get_tensor("codes")
            if "checksum" not in metadata:
                raise StyleError(f"{path}: has no checksum, as those of earlier versions; write it again")
            if metadata["checksum"] != _checksum(codes):
                raise StyleError(f"{path}: damaged, its checksum does not match; write it again")
    except (OSError, safetensors.SafetensorError) as error:
        raise StyleError(f"{path}: cannot be read as a style code ({error})") from error
    if metadata.get("regions") != json.dumps(label_set.regions):
        raise StyleError(
            f"{path}: expected the regions of {label_set.name}, got a style with those of {metadata.get('label_set')}"
        )
    if not codes.is_floating_point():
        raise StyleError(f"{path}: codes must be floating-point numbers, got {codes.dtype}")
    try:
        return StyleCode(codes, label_set, metadata.get("encoder", ""))
    except StyleError as error:
        raise StyleError(f"{path}: {error}") from error


def _checksum(codes: Tensor) -> str:
    """Return the CRC-32 of the bytes of codes, in hexadecimal."""
    return f"{zlib.crc32(codes.contiguous().view(torch.uint8).numpy().tobytes()):08x}"
