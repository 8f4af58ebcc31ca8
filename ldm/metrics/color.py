"""Perceptual color differences: CIELAB and CIEDE2000."""

import math

import torch
from torch import Tensor

# Linear sRGB to CIE XYZ (IEC 61966-2-1), and the D65 white point.
XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
WHITE = (0.95047, 1.0, 1.08883)
CUBE, SLOPE = (
    (6 / 29) ** 3,
    (29 / 6) ** 2 / 3,
)  # CIELAB is linear below CUBE, with this slope
CHROMA_7 = 25.0**7  # constant of equations 4 and 21


def to_lab(rgb: Tensor) -> Tensor:
    """Convert sRGB colors (..., 3) in [-1, 1] to CIELAB (..., 3): L in [0, 100], a and b in about [-128, 128]."""
    srgb = ((rgb.double() + 1) / 2).clamp(0, 1)
    linear = torch.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    xyz = linear @ linear.new_tensor(XYZ).T / linear.new_tensor(WHITE)  # (..., 3)
    x, y, z = torch.where(xyz > CUBE, xyz.clamp(min=CUBE) ** (1 / 3), SLOPE * xyz + 4 / 29).unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def ciede2000(first: Tensor, second: Tensor) -> Tensor:
    """Return the CIEDE2000 difference (...) of CIELAB colors (..., 3); about 1 is just noticeable.

    Sharma, Wu and Dalal, "The CIEDE2000 color-difference formula", Color Research and Application 30 (2005),
    equations 2 to 22.
    """
    (L1, a1, b1), (L2, a2, b2) = first.double().unbind(-1), second.double().unbind(-1)
    mean_chroma = (torch.hypot(a1, b1) + torch.hypot(a2, b2)) / 2
    scale = 1.5 - 0.5 * (mean_chroma**7 / (mean_chroma**7 + CHROMA_7)).sqrt()  # 1 + G
    a1, a2 = a1 * scale, a2 * scale
    C1, C2 = torch.hypot(a1, b1), torch.hypot(a2, b2)
    h1, h2 = (torch.atan2(b, a) % (2 * math.pi) for a, b in ((a1, b1), (a2, b2)))
    gray = C1 * C2 == 0
    dh = torch.remainder(h2 - h1 + math.pi, 2 * math.pi) - math.pi  # in [-pi, pi)
    dh = torch.where((h2 - h1 == math.pi) & ~gray, math.pi, dh)
    dh = torch.where(gray, 0.0, dh)
    dL, dC, dH = L2 - L1, C2 - C1, 2 * (C1 * C2).sqrt() * (dh / 2).sin()
    L, C = (L1 + L2) / 2, (C1 + C2) / 2
    mean_h = torch.where((h1 - h2).abs() > math.pi, (h1 + h2 + 2 * math.pi) / 2, (h1 + h2) / 2)
    mean_h = torch.where(((h1 - h2).abs() > math.pi) & (h1 + h2 >= 2 * math.pi), mean_h - 2 * math.pi, mean_h)
    H = torch.where(gray, h1 + h2, mean_h)
    T = (
        1
        - 0.17 * (H - math.radians(30)).cos()
        + 0.24 * (2 * H).cos()
        + 0.32 * (3 * H + math.radians(6)).cos()
        - 0.20 * (4 * H - math.radians(63)).cos()
    )
    S_L = 1 + 0.015 * (L - 50) ** 2 / (20 + (L - 50) ** 2).sqrt()
    S_C, S_H = 1 + 0.045 * C, 1 + 0.015 * C * T
    theta = math.radians(30) * torch.exp(-(((torch.rad2deg(H) - 275) / 25) ** 2))
    R_T = -2 * (C**7 / (C**7 + CHROMA_7)).sqrt() * (2 * theta).sin()
    lightness, chroma, hue = dL / S_L, dC / S_C, dH / S_H
    return (lightness**2 + chroma**2 + hue**2 + R_T * chroma * hue).clamp(min=0).sqrt()


def mean_color(image: Tensor, mask: Tensor) -> Tensor:
    """Return the mean CIELAB color (3,) of an image (3, H, W) in [-1, 1] inside a boolean mask (H, W)."""
    return to_lab(image[:, mask].T).mean(0)
