"""Image grids of the best, the median and the worst faces of a task."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ldm.data.faces import Face
from ldm.data.image_grid import draw_grid
from ldm.data.images import save_png
from ldm.evaluation.comparison import load_sample
from ldm.evaluation.faces import Faces
from ldm.evaluation.plan import FIRST_STAGE, own_style, random_styles, swapped
from ldm.evaluation.protocol import Protocol
from ldm.evaluation.score_tasks import TaskScores, ranked

ROWS = 3  # faces of each kind
MAX_SAMPLES = 6  # columns of random samples
Columns = dict[str, Tensor]


def draw_cases(
    scores: TaskScores, task: str, variant: str, faces: Faces, protocol: Protocol, samples: Path, folder: Path
) -> str | None:
    """Write the grid of a variant to `folder`; return its file name, or None without scored faces."""
    # A swap that ignores the style leaks nothing: leakage ranks only those without any other score.
    by = {"reconstruct": ["psnr"], "swap": ["-error", "-color_error", "-leakage"]}.get(task, ["l1_inside"])
    titles, rows = [], []
    for title, name in _cases(ranked(scores, by)):
        number = faces.names.index(name)
        face = faces[number]
        if face is not None:
            rows.append(_columns(task, variant, face, number, faces, protocol, samples))
            titles.append(f"{title}: {name}")
    if not rows:
        return None
    grid = {column: torch.stack([row[column] for row in rows]) for column in rows[0]}
    file = f"{task}.png" if variant == task else f"{task}_{variant}.png"
    save_png(folder / file, draw_grid(grid, rows=titles))
    return file


def _cases(names: list[str]) -> list[tuple[str, str]]:
    """Return (kind, face) of the best, median and worst of a ranking, each face once."""
    middle = max(0, (len(names) - ROWS) // 2)
    parts = {"best": names[:ROWS], "median": names[middle : middle + ROWS], "worst": names[-ROWS:]}
    kinds: dict[str, str] = {}
    for kind, part in parts.items():
        for name in part:
            kinds.setdefault(name, kind)
    return [(kind, name) for name, kind in kinds.items()]


def _columns(
    task: str, variant: str, face: Face, number: int, faces: Faces, protocol: Protocol, samples: Path
) -> Columns:
    """Return the images (3, H, W) of one row, by column title."""
    mask = torch.from_numpy(faces.label_set.colorize(face.labels)).permute(2, 0, 1) / 127.5 - 1
    columns = {"photo": face.image, "mask": mask}

    def add(title: str, file: str) -> None:
        image = load_sample(samples, file)
        columns[title] = torch.zeros_like(face.image) if image is None else image

    if task == "reconstruct":
        add("first stage", f"{FIRST_STAGE}/{face.name}.png")
        add("reconstruction", own_style(faces, protocol, number).file)
    elif task == "swap":
        swap = swapped(faces, protocol, variant, number)
        assert swap is not None and swap.style_source is not None  # only scored faces are drawn
        source = faces[swap.style_source]
        assert source is not None
        columns["style source"] = source.image
        add("own style", own_style(faces, protocol, number).file)
        add("swapped", swap.file)
        truth = faces.truth(number, swap.style_source, swap.regions)
        if truth is not None:
            columns["ground truth"] = truth
    else:
        for k, spec in enumerate(random_styles(faces, protocol, task, variant, number)[:MAX_SAMPLES]):
            add(f"sample {k + 1}", spec.file)
    return columns
