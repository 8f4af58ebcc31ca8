"""Color spaces of photos: pixels of any RGB matrix profile (sRGB, Display P3, Adobe RGB) <-> CIELAB.

Photos are edited in CIELAB with a D50 white (ISO 15076-1, the profile connection space), which preserves
colors outside sRGB; only the inputs of the network are sRGB.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

WHITE = np.array([0.9642, 1.0, 0.8249])  # D50
_SRGB_TO_XYZ = np.array(  # adapted to D50 by Bradford's matrix, as in sRGB's own profile
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)
_SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0.0, 0.0)  # parametric type 3
_PARAMETERS = (1, 3, 4, 5, 7)  # number of parameters of each type of parametric curve
_CODES = np.linspace(0, 1, 4096)
_BISECTIONS = 7  # for the chroma of a color at the gamut's boundary, to 1 %
_TOLERANCE = 1e-3  # of linear light: colors of the gamut's boundary are inside in spite of rounding


class ColorProfileError(ValueError):
    """A profile is damaged or not an RGB matrix profile."""


@dataclass(frozen=True, eq=False)
class ColorSpace:
    """RGB color space: three tone curves and a matrix.

    Attributes:
        matrix: (3, 3), linear RGB to XYZ relative to D50.
        curves: (3, 4096), linear light of evenly spaced codes in [0, 1], increasing.
    """

    matrix: np.ndarray
    curves: np.ndarray

    @classmethod
    def srgb(cls) -> ColorSpace:
        """Return sRGB."""
        return cls(_SRGB_TO_XYZ, np.stack([_parametric(3, _SRGB_CURVE)] * 3))

    @classmethod
    def from_profile(cls, profile: bytes) -> ColorSpace:
        """Read an ICC profile.

        Raises:
            ColorProfileError: damaged, or not an RGB matrix profile (gray, CMYK, lookup tables).
        """
        try:
            tags = _tags(profile)
            columns = [struct.unpack(">3i", tags[name][8:20]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
            curves = np.stack([_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")])
        except (struct.error, KeyError, ValueError, OverflowError) as error:
            raise ColorProfileError(
                f"unsupported color profile: expected an RGB matrix profile ({error})"
            ) from error
        matrix = np.array(columns).T / 65536
        if (
            abs(np.linalg.det(matrix)) < 1e-4
            or not np.isfinite(curves).all()
            or (np.ptp(curves, 1) < 0.5).any()
        ):
            raise ColorProfileError("the color profile is damaged: its primaries or curves are degenerate")
        return cls(matrix, np.maximum.accumulate(curves, 1))

    def to_linear(self, pixels: np.ndarray) -> np.ndarray:
        """Return the linear light, float32 (..., 3) in [0, 1], of uint8 pixels (..., 3)."""
        channels = [table[pixels[..., i]] for i, table in enumerate(self._tables)]
        return np.stack(channels, -1)

    def from_linear(self, linear: np.ndarray) -> np.ndarray:
        """Return codes in [0, 1], float32 (..., 3), of linear light; out of range values are clipped."""
        codes = [np.interp(linear[..., i], self.curves[i], _CODES) for i in range(3)]
        return np.stack(codes, -1).astype(np.float32)

    def to_lab(self, pixels: np.ndarray) -> np.ndarray:
        """Return CIELAB, float32 (..., 3), L in 0..100, of uint8 pixels (..., 3)."""
        return linear_to_lab(self.to_linear(pixels), self.matrix)

    def from_lab(self, lab: np.ndarray) -> np.ndarray:
        """Return codes in [0, 1], float32 (..., 3), of CIELAB; out-of-gamut colors are clipped."""
        return self.from_linear(lab_to_linear(lab, self.matrix))

    def in_gamut(self, lab: np.ndarray) -> np.ndarray:
        """Return CIELAB (..., 3) with the chroma of out-of-gamut colors reduced until they are inside.

        Lightness and hue are kept, which clipping the channels does not: strands of saturated hair stay
        visible.
        """
        outside = self._outside(lab)
        if not outside.any():
            return lab
        colors = lab[outside]
        colors[:, 0] = colors[:, 0].clip(0, 100)
        low, high = np.zeros(len(colors), np.float32), np.ones(len(colors), np.float32)
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            beyond = self._outside(_with_chroma(colors, middle))
            low, high = np.where(beyond, low, middle), np.where(beyond, middle, high)
        result = lab.copy()
        result[outside] = _with_chroma(colors, low)
        return result

    def _outside(self, lab: np.ndarray) -> np.ndarray:
        linear = lab_to_linear(lab, self.matrix)
        outside: np.ndarray = np.any((linear < -_TOLERANCE) | (linear > 1 + _TOLERANCE), axis=-1)
        return outside

    @cached_property
    def _tables(self) -> np.ndarray:
        """Return (3, 256): the linear light of every byte."""
        bytes_ = np.arange(256) / 255
        return np.stack([np.interp(bytes_, _CODES, curve) for curve in self.curves]).astype(np.float32)


def _with_chroma(lab: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.concatenate([lab[:, :1], lab[:, 1:] * scale[:, None]], -1)


def linear_to_lab(linear: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return CIELAB (..., 3) of linear RGB (..., 3)."""
    ratio = linear @ (matrix.T / WHITE).astype(np.float32)
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1)


def lab_to_linear(lab: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return linear RGB (..., 3), unclipped, of CIELAB (..., 3)."""
    y = (lab[..., 0] + 16) / 116
    f = np.stack([y + lab[..., 1] / 500, y, y - lab[..., 2] / 200], -1)
    ratio = np.where(f > 6 / 29, f**3, 3 * (6 / 29) ** 2 * (f - 4 / 29))
    return ratio @ np.linalg.inv(matrix.T / WHITE).astype(np.float32)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    """Return the tagged data of an ICC profile (ISO 15076-1, section 7.3)."""
    if profile[16:20] != b"RGB ":
        raise ValueError("its color space is not RGB")
    (count,) = struct.unpack(">I", profile[128:132])
    tags = {}
    for i in range(min(count, 200)):
        name, start, size = struct.unpack(">4sII", profile[132 + 12 * i : 144 + 12 * i])
        tags[name] = profile[start : start + size]
    if b"A2B0" in tags:
        raise ValueError("it has lookup tables")
    return tags


def _curve(data: bytes) -> np.ndarray:
    """Return a tone curve, sampled at 4096 codes (sections 10.6 and 10.18)."""
    if data[:4] == b"para":
        (kind,) = struct.unpack(">H", data[8:10])
        if kind >= len(_PARAMETERS):
            raise ValueError(f"unknown parametric curve {kind}")
        count = _PARAMETERS[kind]
        return _parametric(kind, [n / 65536 for n in struct.unpack(f">{count}i", data[12 : 12 + 4 * count])])
    if data[:4] != b"curv":
        raise ValueError(f"unknown curve {data[:4]!r}")
    (count,) = struct.unpack(">I", data[8:12])
    if count == 0:
        return _CODES.copy()
    if count == 1:
        return _CODES ** (struct.unpack(">H", data[12:14])[0] / 256)
    values = np.frombuffer(data[12 : 12 + 2 * count], ">u2").astype(np.float64) / 65535
    return np.interp(_CODES, np.linspace(0, 1, count), values)


def _parametric(kind: int, numbers: Sequence[float]) -> np.ndarray:
    """Return a parametric curve: (a x + b)^g + e above d, c x + f below."""
    g, a, b, c, d, e, f = [*numbers, *[0.0] * (7 - len(numbers))]
    if kind == 0:
        return _CODES**g
    if kind in (1, 2):  # their linear part is constant: the number c of type 2
        c, d, e, f = 0.0, -b / a, c, c
    return np.where(d <= _CODES, np.maximum(a * _CODES + b, 0) ** g + e, c * _CODES + f)
