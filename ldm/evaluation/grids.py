"""Pictures beside the numbers: the best, the median and the worst faces of a task, by name."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ldm.data.faces import Face
from ldm.data.image_grid import draw_grid
from ldm.data.images import save_png
from ldm.evaluation.comparing import read_back
from ldm.evaluation.faces import Faces
from ldm.evaluation.plan import FIRST_STAGE, drawn, swapped, unchanged
from ldm.evaluation.protocol import Protocol
from ldm.evaluation.score_tasks import TaskScores, ranked

EACH = 3  # faces of each kind
Columns = dict[str, Tensor]


def draw_cases(
    scores: TaskScores, task: str, variant: str, faces: Faces, protocol: Protocol, samples: Path, folder: Path
) -> str | None:
    """Write a grid below `folder` and return its name; None if there is nothing to show."""
    by = {"reconstruct": ["psnr"], "swap": ["-error", "-leakage", "-change"]}.get(task, ["l1_inside"])
    chosen = _cases(ranked(scores, by))
    rows, shown = [], []
    for title, name in chosen:
        number = faces.names.index(name)
        face = faces[number]
        if face is not None:
            columns = _columns(task, variant, face, number, faces, protocol, samples)
            rows.append(f"{title}: {name}")
            shown.append(columns)
    if not shown:
        return None
    grid = {column: torch.stack([columns[column] for columns in shown]) for column in shown[0]}
    name = f"{task}.png" if variant == task else f"{task}_{variant}.png"
    save_png(folder / name, draw_grid(grid, rows=rows))
    return name


def _cases(names: list[str]) -> list[tuple[str, str]]:
    """Return (kind, face) of the best, the middle and the last of a ranking, each face once."""
    middle = max(0, (len(names) - EACH) // 2)
    parts = {"best": names[:EACH], "median": names[middle : middle + EACH], "worst": names[-EACH:]}
    seen: dict[str, str] = {}
    for kind, part in parts.items():
        for name in part:
            seen.setdefault(name, kind)
    return [(kind, name) for name, kind in seen.items()]


def _columns(
    task: str, variant: str, face: Face, number: int, faces: Faces, protocol: Protocol, samples: Path
) -> Columns:
    painted = torch.from_numpy(faces.label_set.colourise(face.labels)).permute(2, 0, 1) / 127.5 - 1
    columns = {"photo": face.image, "mask": painted}

    def add(title: str, file: str) -> None:
        made = read_back(samples, file)
        columns[title] = torch.zeros_like(face.image) if made is None else made

    if task == "reconstruct":
        add("first stage", f"{FIRST_STAGE}/{face.name}.png")
        add("reconstruction", unchanged(faces, protocol, number).file)
    elif task == "swap":
        swap = swapped(faces, protocol, variant, number)
        assert swap is not None and swap.other is not None  # it has a score
        other = faces[swap.other]
        assert other is not None
        columns["style of"] = other.image
        add("own style", unchanged(faces, protocol, number).file)
        add("swapped", swap.file)
        truth = faces.truth(number, swap.other, swap.regions)
        if truth is not None:
            columns["truth"] = truth
    else:
        for place, picture in enumerate(drawn(faces, protocol, task, variant, number)[:6]):
            add(f"sample {place + 1}", picture.file)
    return columns
