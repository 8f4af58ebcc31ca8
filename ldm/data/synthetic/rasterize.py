"""Rasterization of a face shape to a label map of any size, from back to front."""

from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ldm.data.labels import CELEBAMASK_HQ
from ldm.data.synthetic.rng import Array, wave
from ldm.data.synthetic.shape import FaceShape

Mask = NDArray[np.bool_]
Labels = NDArray[np.uint8]

BACKGROUND, SKIN, NOSE, GLASSES, LEFT_EYE, RIGHT_EYE, LEFT_BROW, RIGHT_BROW, LEFT_EAR, RIGHT_EAR = (
    CELEBAMASK_HQ.indices(
        ["background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear"]
    )
)
MOUTH, UPPER_LIP, LOWER_LIP, HAIR, HAT, EARRING, NECKLACE, NECK, CLOTH = CELEBAMASK_HQ.indices(
    ["mouth", "u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth"]
)

LEFT, RIGHT = (LEFT_EYE, LEFT_BROW, LEFT_EAR), (RIGHT_EYE, RIGHT_BROW, RIGHT_EAR)
# Per region: +1 for LEFT, -1 for RIGHT, 0 for others.
SIDES = np.array([(k in LEFT) - (k in RIGHT) for k in range(len(CELEBAMASK_HQ.regions))], dtype=np.float64)
# Depth of the regions that cast or receive shadows: a region shadows those of smaller depth.
_DEPTHS = {
    CLOTH: 0,
    NECK: 0,
    LEFT_EAR: 0,
    RIGHT_EAR: 0,
    SKIN: 1,
    NOSE: 1,
    UPPER_LIP: 1,
    LOWER_LIP: 1,
    HAIR: 2,
    HAT: 3,
}
CASTING = np.array([_DEPTHS.get(k, 0) for k in range(len(CELEBAMASK_HQ.regions))], dtype=np.uint8)
RECEIVING = np.array([_DEPTHS.get(k, 9) for k in range(len(CELEBAMASK_HQ.regions))], dtype=np.uint8)


@dataclass
class Layout:
    """Label map of a face, with the coordinates of its pixels.

    Attributes:
        labels: (size, size), uint8, labels.
        x, y: (size, size), image coordinates of the pixel centers in [-1, 1].
        u, v: (size, size), coordinates in the head frame.
    """

    shape: FaceShape
    size: int
    labels: Labels = field(init=False)
    x: Array = field(init=False)
    y: Array = field(init=False)
    u: Array = field(init=False)
    v: Array = field(init=False)

    def __post_init__(self) -> None:
        self.x, self.y = _grid(self.size)
        self.u, self.v = self.shape.pose.to_head(self.x, self.y)
        self.labels = np.zeros((self.size, self.size), dtype=np.uint8)
        self._paint_behind()
        self._paint_body()
        self._paint_head()
        for side in (1, -1):
            self._paint_side(side)
        self._paint_mouth()
        self._paint_hair_and_hat()
        self._paint_earrings()

    def window(self, u: float, v: float, reach: float) -> tuple[slice, slice]:
        """Return the rows and columns of all pixels within `reach` of the point (u, v) of the head frame."""
        x, y = self.shape.pose.to_image(u, v)
        reach = reach * self.shape.pose.scale
        limits = [
            int((edge * 0.5 + 0.5) * self.size) for edge in (y - reach, y + reach, x - reach, x + reach)
        ]
        top, bottom, left, right = (min(max(limit, 0), self.size) for limit in limits)
        return slice(top, bottom + 1), slice(left, right + 1)

    def shadow(self) -> Array:
        """Return the strength (size, size) in [0, 1] of shadows cast downwards by regions of greater depth."""
        shadow = np.zeros(self.labels.shape, dtype=np.uint8)
        casting, receiving = CASTING[self.labels], RECEIVING[self.labels]
        for step in range(1, 7):
            rows = max(1, int(0.015 * step * self.size + 0.5))
            shadow[rows:] += (casting[:-rows] > receiving[rows:]) * np.uint8(7 - step)
        return shadow * np.float64(0.045)

    def _hair_outline(self) -> Mask:
        """Return the mask of the hair including the opening for the face."""
        hair, head = self.shape.hair, self.shape.head
        u, v = self.u, self.v
        if hair.kind == "bald":
            return np.zeros(u.shape, dtype=bool)
        if hair.ragged > 0:
            u = u * (1 + hair.ragged * wave(hair.locks * v))
            v = v + hair.ragged * wave(hair.locks * 0.7 * u + 0.25)
        half, middle = head.width + hair.volume, -0.1
        cap = (u / half) ** 2 + ((v - middle) / (head.top + hair.height + middle)) ** 2 < 1
        depth = v - middle
        tip = hair.length - 0.25 * np.abs(u) if hair.kind in ("bob", "long", "afro") else hair.length
        sides = (np.abs(u) < half + hair.flare * depth) & (v < tip) & (depth >= 0)
        outline = sides | (cap & (depth < 0))
        if hair.bun > 0:
            outline |= (
                self.u**2 + (self.v + head.top + hair.height + 0.6 * hair.bun) ** 2 < hair.bun * hair.bun
            )
        if self.shape.hat is not None:
            outline &= self.shape.hat.rise(self.u, self.v) < 0.1
        return outline

    def _hair_opening(self) -> Mask:
        """Return the mask of the opening for the face."""
        hair, head = self.shape.hair, self.shape.head
        middle = -0.12
        above = np.minimum(self.v - middle, 0.0)
        u = self.u - head.turn + hair.sweep * above
        notch = 0.05 * np.maximum(1 - np.abs(self.u - hair.parting) * 5, 0.0)
        arch = (u / hair.opening) ** 2
        arch += (above / (middle - hair.hairline + notch)) ** 2
        opening = arch < 1
        if hair.fringe > -1:
            opening &= self.v > hair.fringe + (0.015 + hair.ragged) * wave(
                hair.locks * (self.u + 0.3 * hair.parting)
            )
        return opening

    def _paint_behind(self) -> None:
        """Label the hair behind neck and shoulders."""
        self._hair = self._hair_outline()
        if self.shape.hair.length > 0.25:
            np.putmask(self.labels, self._hair, HAIR)

    def _paint_body(self) -> None:
        """Label neck, necklace and clothes."""
        body, necklace = self.shape.body, self.shape.necklace
        top = max(0, int((body.shoulder * 0.5 + 0.5) * self.size) - self.size // 4)
        x, y, labels = self.x[top:], self.y[top:], self.labels[top:]
        across = np.abs(x - body.x)
        flare = np.maximum(y - body.shoulder + 0.12, 0.0)
        skin = across < body.neck + np.minimum(2 * flare * flare, 0.05)
        skin |= y > body.shoulder + 0.015 + body.slope * np.maximum(across - body.neck, 0.0)
        np.putmask(labels, skin, NECK)
        np.putmask(labels, body.neckline(x, y) > 0, CLOTH)
        if necklace is not None:
            p, q = necklace.local(x, y, body)
            chain = (np.abs(q) < 1) & (np.abs(p) < 1)
            if necklace.pendant > 0:
                drop = y - (body.shoulder - 0.06 + necklace.depth + necklace.pendant)
                chain |= (x - body.x) ** 2 + drop * drop < necklace.pendant * necklace.pendant
            labels[chain & ((labels == NECK) | (labels == CLOTH))] = NECKLACE

    def _paint_head(self) -> None:
        """Label ears, face, nose and glasses."""
        shape = self.shape
        for side, label in ((1, LEFT_EAR), (-1, RIGHT_EAR)):
            center = side * (shape.head.width - 0.01) + 0.4 * shape.head.turn
            at = self.window(center, shape.ears.v, shape.ears.height + 0.05)
            du = (self.u[at] - center) / (shape.ears.width - 0.6 * side * shape.head.turn)
            dv = (self.v[at] - shape.ears.v) / shape.ears.height
            self.labels[at][du * du + dv * dv < 1 + 0.25 * side * du * (dv < 0)] = label
        np.putmask(self.labels, shape.head.outline(self.u, self.v) < 1, SKIN)
        at = self.window(shape.head.turn, 0.08, 0.3)
        p, t = shape.nose.local(self.u[at], self.v[at], shape.head.turn)
        tip = 1.06 - 0.14 * p * p
        self.labels[at][(np.abs(p) < 1) & (t > 0) & (t < tip)] = NOSE
        if shape.glasses is not None:
            _, q, f = shape.glasses.lens(self.u, self.v, shape.eyes, shape.head.turn)
            arms = (np.abs(q + 0.35) < 0.22) & (np.abs(self.u) < shape.head.width + 0.02)
            bridge_only = np.abs(self.u - shape.head.turn) > shape.eyes.spacing
            self.labels[(f < 1) | (arms & (bridge_only | (np.abs(self.u) < shape.eyes.spacing)))] = GLASSES

    def _paint_side(self, side: int) -> None:
        """Label eye and brow of one side: +1 is l_, on the right of the image."""
        shape, turn = self.shape, self.shape.head.turn
        eyes = shape.eyes
        at = self.window(turn + side * eyes.spacing, eyes.v - 0.08, 0.28)
        u, v = self.u[at], self.v[at]
        if shape.glasses is None or not shape.glasses.dark:
            p, q = eyes.local(u, v, side, turn)
            lids = 1 - p * p
            self.labels[at][(q > -lids) & (q < 0.8 * lids)] = LEFT_EYE if side > 0 else RIGHT_EYE
        p, q = shape.brows.local(u, v, side, eyes.spacing, turn)
        self.labels[at][q * q + p * p * p * p < 1] = LEFT_BROW if side > 0 else RIGHT_BROW

    def _paint_mouth(self) -> None:
        """Label the lips, and the mouth between them if it is open."""
        mouth = self.shape.mouth
        at = self.window(1.1 * self.shape.head.turn, mouth.v, 0.34)
        p, w, envelope = mouth.local(self.u[at], self.v[at], self.shape.head.turn)
        labels, within = self.labels[at], np.abs(p) < 1
        above, below = -0.35 * mouth.gap * envelope, 0.65 * mouth.gap * envelope
        bow = 1 - mouth.bow * np.maximum(1 - np.abs(p) * 4, 0.0)
        labels[within & (w >= above - mouth.upper * envelope * bow - 0.008) & (w < above)] = UPPER_LIP
        labels[within & (w >= below) & (w < below + mouth.lower * envelope + 0.008)] = LOWER_LIP
        labels[within & (w >= above) & (w < below)] = MOUTH

    def _paint_hair_and_hat(self) -> None:
        """Label the hair in front of face and ears, then the hat."""
        hair, hat, head = self.shape.hair, self.shape.hat, self.shape.head
        front = self._hair & (~self._hair_opening() | (self.labels == BACKGROUND))
        if not hair.front or hair.length < 0.8:
            front &= self.y < self.shape.body.shoulder - 0.02
        np.putmask(self.labels, front, HAIR)
        if hat is None:
            return
        rise = hat.rise(self.u, self.v)
        half = head.width + hat.fullness + (0.5 * hair.volume if hat.kind == "beanie" else 0.2 * hair.volume)
        lift = np.maximum(rise, 0.0)
        cover = (self.u / half) ** 2 + lift * lift * lift < 1
        cover &= rise > 0
        if hat.kind == "brim":
            cover |= (self.u / (half + hat.brim)) ** 2 + ((rise - 0.06) / 0.17) ** 2 < 1
        elif hat.kind == "cap":
            cover |= (self.u / (half * 0.97)) ** 2 + ((rise + 0.02) / 0.17) ** 2 < 1
        np.putmask(self.labels, cover, HAT)

    def _paint_earrings(self) -> None:
        """Label the earrings."""
        ears, head = self.shape.ears, self.shape.head
        if ears.earring == "none":
            return
        for side in (1, -1):
            center = side * (head.width + 0.01) + 0.4 * head.turn
            lobe = ears.v + ears.height
            at = self.window(center, lobe + 0.1, 0.3)
            du, dv = (self.u[at] - center) / ears.ring_size, (self.v[at] - lobe) / ears.ring_size
            if ears.earring == "stud":
                earring = du * du + dv * dv < 0.042**2
            elif ears.earring == "hoop":
                earring = np.abs(np.sqrt(du * du + (dv - 0.07) ** 2) - 0.07) < 0.024
            else:
                earring = (du / 0.04) ** 2 + ((dv - 0.08) / 0.1) ** 2 < 1
            self.labels[at][earring] = EARRING


@lru_cache(maxsize=8)
def _grid(size: int) -> tuple[Array, Array]:
    """Return the image coordinates x and y of the pixel centers, each (size, size), read-only."""
    line = (np.arange(size) * 2 + 1) / size - 1
    grid = np.tile(line, (size, 1)), np.repeat(line, size).reshape(size, size)
    for coordinate in grid:
        coordinate.flags.writeable = False
    return grid


def rasterize(shape: FaceShape, size: int) -> Labels:
    """Return the label map of `shape`, uint8 (size, size), with the labels of CelebAMask-HQ."""
    return Layout(shape, size).labels
