"""Scores per face: reconstructions against the photo, swaps against the ground truth, diversity of random styles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ldm.data.faces import Face
from ldm.evaluation.comparison import Comparison, PixelAverage, Scores, load_sample, means, region_mask
from ldm.evaluation.faces import Faces
from ldm.evaluation.plan import FIRST_STAGE, ImageSpec, own_style, random_styles, swapped
from ldm.evaluation.protocol import Protocol
from ldm.metrics.color import ciede2000, mean_color
from ldm.metrics.pixels import absolute_error
from ldm.modules.lpips import LPIPS

# Ratios of means. Swaps: remaining fraction of the error, fraction of the change outside the regions.
RATIOS = (
    ("error_ratio", "error", "error_unswapped"),
    ("leakage_ratio", "leakage", "change"),
    ("color_ratio", "color_error", "color_unswapped"),
)


@dataclass
class TaskScores:
    """Scores of a task or of one of its variants.

    Attributes:
        means: means over all faces.
        faces: scores of each face, by name.
        regions: for `reconstruct`, region -> scores over its pixels in all images.
    """

    means: Scores = field(default_factory=dict)
    faces: dict[str, Scores] = field(default_factory=dict)
    regions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def finish(self) -> TaskScores:
        """Compute the means and their ratios; return self."""
        self.means = means(self.faces.values())
        for name, above, below in RATIOS:
            if above in self.means and self.means.get(below):
                self.means[name] = self.means[above] / self.means[below]
        return self


class Scorer:
    """Computes the scores of the images of an evaluation."""

    def __init__(self, faces: Faces, protocol: Protocol, folder: Path, lpips: LPIPS | None) -> None:
        """Take the faces, the protocol, the folder samples/ and, if available, LPIPS."""
        self.faces, self.protocol, self.folder, self.lpips = faces, protocol, folder, lpips

    def reconstruct(self) -> TaskScores:
        """Compare each reconstruction with its photo, and the first stage's (the upper bound) with the same photo."""
        found = TaskScores()
        averages = {
            side: {region: PixelAverage() for region in self.faces.label_set.regions}
            for side in ("result", "first_stage")
        }
        for number in self._numbers("reconstruct"):
            face = self.faces[number]
            image = self._load(own_style(self.faces, self.protocol, number))
            bound = load_sample(self.folder, f"{FIRST_STAGE}/{self.faces.names[number]}.png")
            if face is None or image is None or bound is None:
                continue
            sides = {
                "result": Comparison(image, face.image, self.lpips),
                "first_stage": Comparison(bound, face.image, self.lpips),
            }
            found.faces[face.name] = {
                **sides["result"].whole(),
                **{f"first_stage_{name}": value for name, value in sides["first_stage"].whole().items()},
            }
            for region_number, region in enumerate(self.faces.label_set.regions):
                mask = face.labels == region_number
                for side, comparison in sides.items():
                    averages[side][region].add(comparison, mask)
        for region, result in averages["result"].items():
            if result.pixels:
                bound_scores = averages["first_stage"][region].scores()
                found.regions[region] = {
                    "pixels": result.pixels,
                    **result.scores(),
                    **{f"first_stage_{name}": value for name, value in bound_scores.items()},
                }
        return found.finish()

    def swap(self, variant: str) -> TaskScores:
        """Compare each swap with the ground truth, if known, and with the unswapped image of the same noise."""
        found = TaskScores()
        for number in self._numbers(f"swap {variant}"):
            face, spec = self.faces[number], None
            if face is not None:
                spec = swapped(self.faces, self.protocol, variant, number)
            if face is None or spec is None or spec.style_source is None:
                continue
            image, baseline = self._load(spec), self._load(own_style(self.faces, self.protocol, number))
            if image is None or baseline is None:
                continue
            inside = region_mask(face.labels, self.faces.label_set.indices(spec.regions))  # (H, W)
            change = absolute_error(image[None], baseline[None])[0]  # (H, W)
            scores = {"change": float(change[inside].mean()), "leakage": float(change[~inside].mean())}
            scores |= self._color_errors(image, face, self.faces[spec.style_source], spec.regions)
            truth = self.faces.truth(number, spec.style_source, spec.regions)
            if truth is not None:
                comparison = Comparison(image, truth, self.lpips)
                unswapped = absolute_error(face.image[None], truth[None])[0]
                scores |= comparison.whole()
                scores["error"] = comparison.inside(inside)["l1"]
                scores["error_unswapped"] = float(unswapped[inside].mean())
            found.faces[face.name] = scores
        return found.finish()

    def _color_errors(
        self, image: Tensor, face: Face, reference: Face | None, regions: Sequence[str]
    ) -> Scores:
        """Return the CIEDE2000 differences to the mean colors of the reference's regions, of image and photo.

        Means over the regions that both faces have; needs no ground truth.
        """
        pairs = []
        for region in self.faces.label_set.indices(regions):
            if reference is None:
                continue
            here, there = face.labels == region, reference.labels == region
            if here.any() and there.any():
                expected = mean_color(reference.image, there)
                pairs.append([float(ciede2000(mean_color(x, here), expected)) for x in (image, face.image)])
        if not pairs:
            return {}
        errors, unswapped = zip(*pairs, strict=True)
        return {"color_error": sum(errors) / len(pairs), "color_unswapped": sum(unswapped) / len(pairs)}

    def diversity(self, task: str, variant: str) -> TaskScores:
        """Return the mean difference of all pairs of images of a label map, inside and outside the regions."""
        found = TaskScores()
        for number in self._numbers(f"{task} {variant}" if variant != task else task):
            face = self.faces[number]
            specs = [] if face is None else random_styles(self.faces, self.protocol, task, variant, number)
            images = [image for image in map(self._load, specs) if image is not None]
            if face is None or len(images) < 2:
                continue
            inside = region_mask(face.labels, self.faces.label_set.indices(specs[0].regions))  # (H, W)
            scores = {}
            for name, difference in self._pairwise(torch.stack(images)).items():
                scores[f"{name}_inside"] = float(difference[inside].mean())
                scores[f"{name}_outside"] = float(difference[~inside].mean())
            found.faces[face.name] = scores
        return found.finish()

    def _pairwise(self, images: Tensor) -> dict[str, Tensor]:
        """Return the mean difference (H, W) over all pairs of images (N, 3, H, W): "l1" and perhaps "lpips"."""
        pairs = list(combinations(range(len(images)), 2))
        maps = {"l1": _mean(absolute_error(images[[i]], images[[j]]) for i, j in pairs)}
        if self.lpips is not None:
            lpips, device = self.lpips, self.lpips.mean.device
            with torch.no_grad():
                stages = [lpips.stages_of(image[None].to(device)) for image in images]
                distances = (lpips.between(stages[i], stages[j], images.shape[-2:]) for i, j in pairs)
                maps["lpips"] = _mean(distances).cpu()
        return maps

    def _load(self, spec: ImageSpec) -> Tensor | None:
        return load_sample(self.folder, spec.file)

    def _numbers(self, name: str) -> tqdm:
        return tqdm(range(len(self.faces)), unit="face", desc=f"scoring {name}", delay=2)


def _mean(maps: Iterable[Tensor]) -> Tensor:
    """Return the mean (H, W) of maps (1, H, W), of which one is in memory at a time."""
    found = iter(maps)
    total, count = next(found)[0], 1
    for single in found:
        total, count = total + single[0], count + 1
    return total / count


def ranked(scores: TaskScores, by: Sequence[str]) -> list[str]:
    """Return the faces from best to worst by the first available score; "-" before its name: lower is better."""
    for criterion in by:
        name, sign = criterion.removeprefix("-"), 1 if criterion.startswith("-") else -1
        known = {
            face: row[name] for face, row in scores.faces.items() if math.isfinite(row.get(name, math.nan))
        }
        if known:
            return sorted(known, key=lambda face: (sign * known[face], face))
    return sorted(scores.faces)
