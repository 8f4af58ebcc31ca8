"""Score the tasks face by face: `reconstruct` against the photo, `swap` against the truth, chance by its variety."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.data.faces import Face
from ldm.evaluation.comparing import Comparison, Pooled, Scores, area_of, means, read_back
from ldm.evaluation.faces import Faces
from ldm.evaluation.plan import FIRST_STAGE, Picture, drawn, swapped, unchanged
from ldm.evaluation.protocol import Protocol
from ldm.metrics.colour import ciede2000, mean_colour
from ldm.metrics.pixels import absolute_error
from ldm.modules.lpips import LPIPS

REGION_SCORES = ("psnr", "ssim", "l1", "lpips")


@dataclass
class TaskScores:
    """The scores of a task, or of one of its variants.

    Attributes:
        means: of all faces.
        faces: of each, by name.
        regions: for `reconstruct`, region -> scores of its pixels in all pictures.
    """

    means: Scores = field(default_factory=dict)
    faces: dict[str, Scores] = field(default_factory=dict)
    regions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def finish(self) -> TaskScores:
        """Compute the means, and the ratios that hold for means alone."""
        self.means = means(self.faces.values())
        for name, above, below in RATIOS:
            if above in self.means and self.means.get(below):
                self.means[name] = self.means[above] / self.means[below]
        return self


# Of a swap: how much of the difference remains, and how much of the change went astray.
RATIOS = (
    ("error_ratio", "error", "error_unswapped"),
    ("leakage_ratio", "leakage", "change"),
    ("colour_ratio", "colour_error", "colour_unswapped"),
)


class Scorer:
    """Reads the pictures of an evaluation back and scores them."""

    def __init__(self, faces: Faces, protocol: Protocol, folder: Path, lpips: LPIPS | None) -> None:
        """Take the faces, the protocol, the folder samples/, and the perceptual distance where there is one."""
        self.faces, self.protocol, self.folder, self.lpips = faces, protocol, folder, lpips

    def reconstruct(self) -> TaskScores:
        """Compare each face with its photo, beside what the first stage alone makes of it: the ceiling."""
        found = TaskScores()
        pooled = {
            side: {region: Pooled() for region in self.faces.label_set.regions}
            for side in ("result", "first_stage")
        }
        for number in self._numbers("reconstruct"):
            face = self.faces[number]
            made = self._read(unchanged(self.faces, self.protocol, number))
            ceiling = read_back(self.folder, f"{FIRST_STAGE}/{self.faces.names[number]}.png")
            if face is None or made is None or ceiling is None:
                continue
            sides = {
                "result": Comparison(made, face.image, self.lpips),
                "first_stage": Comparison(ceiling, face.image, self.lpips),
            }
            found.faces[face.name] = {
                **sides["result"].whole(),
                **{f"first_stage_{name}": value for name, value in sides["first_stage"].whole().items()},
            }
            for region_number, region in enumerate(self.faces.label_set.regions):
                area = face.labels == region_number
                for side, comparison in sides.items():
                    pooled[side][region].add(comparison, area)
        for region, result in pooled["result"].items():
            if result.pixels:
                ceiling_scores = pooled["first_stage"][region].scores()
                found.regions[region] = {
                    "pixels": result.pixels,
                    **result.scores(),
                    **{f"first_stage_{name}": value for name, value in ceiling_scores.items()},
                }
        return found.finish()

    def swap(self, variant: str) -> TaskScores:
        """Compare each swap with the truth, where there is one, and with the same face unswapped."""
        found = TaskScores()
        for number in self._numbers(f"swap {variant}"):
            face, picture = self.faces[number], None
            if face is not None:
                picture = swapped(self.faces, self.protocol, variant, number)
            if face is None or picture is None or picture.other is None:
                continue
            made, before = self._read(picture), self._read(unchanged(self.faces, self.protocol, number))
            if made is None or before is None:
                continue
            inside = area_of(face.labels, self.faces.label_set.indices(picture.regions))
            change = absolute_error(made[None], before[None])[0]
            scores = {"change": float(change[inside].mean()), "leakage": float(change[~inside].mean())}
            scores |= self._colour_errors(made, face, self.faces[picture.other], picture.regions)
            truth = self.faces.truth(number, picture.other, picture.regions)
            if truth is not None:
                compared = Comparison(made, truth, self.lpips)
                unswapped = absolute_error(face.image[None], truth[None])[0]
                scores |= compared.whole()
                scores["error"] = compared.inside(inside)["l1"]
                scores["error_unswapped"] = float(unswapped[inside].mean())
            found.faces[face.name] = scores
        return found.finish()

    def _colour_errors(
        self, made: Tensor, face: Face, reference: Face | None, regions: Sequence[str]
    ) -> Scores:
        """Return how far the regions' mean colours are from the reference's, of the swap and of the photo unswapped.

        CIEDE2000, mean of the regions that both faces have; needs no rendered truth.
        """
        pairs = []
        for region in self.faces.label_set.indices(regions):
            if reference is None:
                continue
            here, there = face.labels == region, reference.labels == region
            if here.any() and there.any():
                expected = mean_colour(reference.image, there)
                pairs.append([float(ciede2000(mean_colour(x, here), expected)) for x in (made, face.image)])
        if not pairs:
            return {}
        errors, unswapped = zip(*pairs, strict=True)
        return {"colour_error": sum(errors) / len(pairs), "colour_unswapped": sum(unswapped) / len(pairs)}

    def variety(self, task: str, variant: str) -> TaskScores:
        """Return how far the pictures of one mask are from each other: mean of all pairs, inside and outside."""
        found = TaskScores()
        for number in self._numbers(f"{task} {variant}" if variant != task else task):
            face = self.faces[number]
            pictures = [] if face is None else drawn(self.faces, self.protocol, task, variant, number)
            made = [image for image in map(self._read, pictures) if image is not None]
            if face is None or len(made) < 2:
                continue
            inside = area_of(face.labels, self.faces.label_set.indices(pictures[0].regions))
            scores = {}
            for name, apart in self._pairwise(torch.stack(made)).items():
                scores[f"{name}_inside"] = float(apart[inside].mean())
                scores[f"{name}_outside"] = float(apart[~inside].mean())
            found.faces[face.name] = scores
        return found.finish()

    def _pairwise(self, images: Tensor) -> dict[str, Tensor]:
        """Return the mean difference (H, W) of all pairs of images (N, 3, H, W), by kind."""
        first, second = (list(part) for part in zip(*combinations(range(len(images)), 2), strict=True))
        maps = {"l1": absolute_error(images[first], images[second]).mean(0)}
        if self.lpips is not None:
            with torch.no_grad():
                stages = self.lpips.stages_of(images.to(self.lpips.mean.device))
                one, other = ([stage[part] for stage in stages] for part in (first, second))
                maps["lpips"] = self.lpips.between(one, other, images.shape[-2:]).mean(0).cpu()
        return maps

    def _read(self, picture: Picture) -> Tensor | None:
        return read_back(self.folder, picture.file)

    def _numbers(self, what: str) -> tqdm:
        return tqdm(range(len(self.faces)), unit="face", desc=f"scoring {what}")


def ranked(scores: TaskScores, by: Sequence[str]) -> list[str]:
    """Return the faces from best to worst by the first of these scores that there is; "-" means less is better."""
    for wanted in by:
        name, sign = wanted.removeprefix("-"), 1 if wanted.startswith("-") else -1
        known = {
            face: row[name] for face, row in scores.faces.items() if math.isfinite(row.get(name, math.nan))
        }
        if known:
            return sorted(known, key=lambda face: (sign * known[face], face))
    return sorted(scores.faces)
