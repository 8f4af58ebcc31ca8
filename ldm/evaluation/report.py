"""Report of an evaluation: all numbers as JSON, a summary as Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ldm.atomic_files import write_text
from ldm.evaluation.score_sets import MIN_FRECHET
from ldm.evaluation.score_tasks import TaskScores
from ldm.metrics.overlap import Overlap

Row = list[str]


@dataclass
class Report:
    """Results of an evaluation. The attributes are the keys of report.json, which other tools read.

    Attributes:
        facts: weights, data, protocol and versions.
        regions: names of all regions.
        reconstruct: scores of the task reconstruct; None if it was not run.
        swaps: scores of the task swap, by variant.
        chance: scores of the tasks random and noise, by name.
        masks: mask fidelity of the photos ("data") and of each set.
        distances: extractor -> set -> distances.
        left_out: metric that was left out -> reason.
        problems: error messages of faces that could not be read.
        pictures: paths of image grids, relative to the report.
    """

    facts: dict[str, Any]
    regions: Sequence[str]
    reconstruct: TaskScores | None = None
    swaps: dict[str, TaskScores] = field(default_factory=dict)
    chance: dict[str, TaskScores] = field(default_factory=dict)
    masks: dict[str, Overlap] = field(default_factory=dict)
    distances: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        """Write report.json and report.md to `folder`."""
        text = json.dumps(_finite(asdict(self)), indent=1, ensure_ascii=False)
        write_text(folder / "report.json", text)
        write_text(folder / "report.md", self.markdown())

    def markdown(self) -> str:
        """Return the report as Markdown."""
        parts = [f"# {self.facts['protocol']['name']}: {self.facts['weights']['path']}", self._opening()]
        parts += [self._reconstruct(), self._swaps(), self._diversity(), self._masks(), self._distances()]
        if self.pictures:
            links = "\n".join(f"- [{name}]({name})" for name in self.pictures)
            parts.append(f"## Image grids\n\nThe best, median and worst faces:\n\n{links}")
        if self.left_out:
            lines = "\n".join(f"- {metric}: {reason}." for metric, reason in self.left_out.items())
            parts.append(f"## Left out\n\n{lines}")
        if self.problems:
            lines = "\n".join(f"- {problem}" for problem in self.problems)
            parts.append(f"## Faces that could not be read\n\n{lines}")
        return "\n\n".join(part for part in parts if part) + "\n"

    def _opening(self) -> str:
        facts, protocol = self.facts, self.facts["protocol"]
        sampled = ", ".join(f"{name} {value}" for name, value in facts["sampling"].items())
        return (
            f"{facts['faces']} faces of `{protocol['data']}` at {facts['size'][0]}x{facts['size'][1]}; "
            f"weights {facts['weights']['fingerprint']} ({facts['weights']['kind']}); sampled with {sampled} "
            f"in {facts['precision']}. "
            f"{facts['started']}, torch {facts['torch']}, code {str(facts['commit'])[:7]}"
            f"{' with changes' if facts['dirty'] else ''}."
        )

    def _reconstruct(self) -> str:
        if self.reconstruct is None or not self.reconstruct.means:
            return ""
        scores = self.reconstruct
        whole = _sides("all", scores.means)
        rows = [_sides(region, row) for region, row in scores.regions.items()]
        head = ["region", *(f"{name}{of}" for name in SCORES.values() for of in ("", ", first stage"))]
        return (
            f"## Reconstruct\n\n{len(scores.faces)} faces, each sampled from its own label map and style, and the "
            "reconstruction by the first stage alone, which is the upper bound. `all` is the mean over faces; the row "
            f"of a region is the mean over its pixels in all faces.\n\n{_table(head, [whole, *rows])}"
        )

    def _swaps(self) -> str:
        rows = [[name, *_cells(scores, SWAP)] for name, scores in self.swaps.items() if scores.faces]
        if not rows:
            return ""
        known = any("error" in scores.means for scores in self.swaps.values())
        return (
            "## Swap\n\n"
            + (
                "Against the rendered ground truth: PSNR, SSIM and LPIPS of the whole image; `error` is the mean "
                "absolute difference inside the swapped regions (1: black against white), `not swapped` that of the "
                "unedited photo. "
                if known
                else "Photos have no ground truth of swaps. "
            )
            + "`change` and `leakage` are the differences to the image of the same face and noise without the swap, "
            f"inside and outside the swapped regions.\n\n{_table(['swap', *SWAP.values()], rows)}"
        )

    def _diversity(self) -> str:
        rows = [[name, *_cells(scores, DIVERSITY)] for name, scores in self.chance.items() if scores.faces]
        if not rows:
            return ""
        return (
            "## Random styles\n\n"
            f"Diversity of {self.facts['protocol']['samples']} samples per label map: mean absolute difference (L1) "
            "and LPIPS between all pairs, inside and outside the regions with random styles.\n\n"
            + _table(["task", *DIVERSITY.values()], rows)
        )

    def _masks(self) -> str:
        if not self.masks:
            return ""
        rows = [[name, _number(o.miou), _number(o.pixel_accuracy)] for name, o in self.masks.items()]
        per_class = [
            [region, *(_number(o.iou[i]) for o in self.masks.values())]
            for i, region in enumerate(self.regions)
            if any(math.isfinite(o.iou[i]) for o in self.masks.values())
        ]
        return (
            "## Mask fidelity\n\nLabel maps that the face parser predicts, against the input label maps; `data`: the "
            f"photos themselves.\n\n{_table(['images', 'mIoU', 'pixel accuracy'], rows)}\n\n"
            f"IoU of each region:\n\n{_table(['region', *self.masks], per_class)}"
        )

    def _distances(self) -> str:
        if not self.distances:
            return ""
        columns = [(kind, measure) for kind, sets in self.distances.items() for measure in _measures(sets)]
        names = list(dict.fromkeys(name for sets in self.distances.values() for name in sets))
        rows = [
            [
                name,
                str(int(max(sets.get(name, {}).get("pictures", 0) for sets in self.distances.values()))),
                *(
                    _number(self.distances[kind].get(name, {}).get(measure, math.nan))
                    for kind, measure in columns
                ),
            ]
            for name in names
        ]
        few = any(
            row.get("pictures", 0) < MIN_FRECHET for sets in self.distances.values() for row in sets.values()
        )
        note = (
            f"Fewer than {MIN_FRECHET:,} images: prefer KID, which is unbiased. Fréchet distances (FID, FD) are biased "
            "upwards and comparable only between sets of equal size.\n\n"
            if few
            else ""
        )
        head = ["set", "images", *(measure for _, measure in columns)]
        return f"## Distance to the data\n\n{note}{_table(head, rows)}"


SCORES = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS", "l1": "L1"}
SWAP = {
    "faces": "faces",
    "psnr": "PSNR",
    "ssim": "SSIM",
    "lpips": "LPIPS",
    "error": "error",
    "error_unswapped": "not swapped",
    "error_ratio": "ratio",
    "change": "change",
    "leakage": "leakage",
    "leakage_ratio": "ratio",
    "color_error": "color error",
    "color_unswapped": "not swapped",
    "color_ratio": "ratio",
}
DIVERSITY = {
    "faces": "faces",
    "l1_inside": "L1 inside",
    "l1_outside": "L1 outside",
    "lpips_inside": "LPIPS inside",
    "lpips_outside": "LPIPS outside",
}


def _sides(name: str, scores: Mapping[str, float]) -> Row:
    keys = [key for score in SCORES for key in (score, f"first_stage_{score}")]
    return [name, *(_number(scores.get(key, math.nan)) for key in keys)]


def _cells(scores: TaskScores, columns: Mapping[str, str]) -> Row:
    given = {"faces": len(scores.faces), **scores.means}
    return [str(given[key]) if key == "faces" else _number(given.get(key, math.nan)) for key in columns]


def _measures(sets: Mapping[str, Mapping[str, float]]) -> list[str]:
    return [name for name in next(iter(sets.values()), {}) if name != "pictures"]


def _number(value: float) -> str:
    """Format a number with at least three significant digits; NaN and infinity as a dash."""
    if not math.isfinite(value):
        return "-"
    if abs(value) >= 10:
        return f"{value:.2f}"
    return f"{value:.4f}" if abs(value) >= 0.01 or value == 0 else f"{value:.3g}"


def _table(head: Row, rows: Sequence[Row]) -> str:
    """Return a Markdown table, without columns that are empty in every row."""
    kept = [i for i in range(len(head)) if i == 0 or any(row[i] != "-" for row in rows)]
    lines = [[head[i] for i in kept], ["---"] * len(kept), *([row[i] for i in kept] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _finite(value: Any) -> Any:
    """Replace NaN and infinity, which JSON cannot represent, by None in nested data."""
    if isinstance(value, dict):
        return {str(key): _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
