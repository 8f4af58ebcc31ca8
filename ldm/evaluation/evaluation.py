"""An evaluation from start to end: sample what is missing, score, report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.atomic_files import write_text
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.fingerprint import fingerprint
from ldm.data.images import ImageError
from ldm.evaluation.extractors import cache_folder
from ldm.evaluation.faces import Faces, open_faces
from ldm.evaluation.grids import draw_cases
from ldm.evaluation.judges import Judges, find_judges
from ldm.evaluation.processes import Processes
from ldm.evaluation.protocol import Protocol
from ldm.evaluation.report import Report
from ldm.evaluation.sampling import make_pictures
from ldm.evaluation.score_sets import picture_sets, score_distribution, score_masks
from ldm.evaluation.score_tasks import Scorer, TaskScores
from ldm.pipeline import FacePipeline
from ldm.training.run_folder import describe_start


@dataclass
class Evaluation:
    """What to evaluate, where the results go, and who judges.

    Attributes:
        weights: what `FacePipeline.from_pretrained` takes.
        out: folder of the report and its pictures; what is there already is not made again.
        tasks: some of `ldm.evaluation.protocol.TASKS`.
        judges_folder: where networks that judge are looked for.
        judges: such networks by name, see `ldm.evaluation.judges`.
        batch_size: pictures at once.
        options: further arguments of `FacePipeline.from_pretrained`.
    """

    weights: str
    protocol: Protocol
    out: Path
    tasks: Sequence[str]
    judges_folder: Path
    judges: Mapping[str, str]
    batch_size: int
    options: Mapping[str, Any]

    def run(self) -> Report | None:
        """Do it and return the report; None in processes that only help to sample.

        Raises:
            ValueError, OSError: the weights, the data, a judge or the folder cannot be used.
        """
        with Processes() as processes:
            pipe = FacePipeline.from_pretrained(self.weights, **{"device": processes.device, **self.options})
            size = self.protocol.size or pipe.size
            faces = open_faces(self.protocol, pipe.label_set, size)
            judges = Judges()
            facts = self._facts(pipe, faces, size)
            if processes.rank == 0:
                # Before the sampling, which may take days: a judge that cannot be used is a mistake of now.
                judges = find_judges(self.judges_folder, self.judges, pipe.device, pipe.label_set)
                claim(self.out, facts)
            processes.wait()
            made = make_pictures(
                pipe,
                faces,
                self.protocol,
                self.tasks,
                self.samples,
                batch_size=self.batch_size,
                share=(processes.rank, processes.world),
            )
            processes.wait()
            if processes.rank:
                return None
            print(f"{made} pictures made here, in {self.samples}", flush=True)
            return self.score(faces, judges, facts)

    @property
    def samples(self) -> Path:
        """Where the pictures are."""
        return self.out / "samples"

    def score(self, faces: Faces, judges: Judges, facts: dict[str, Any]) -> Report:
        """Score the pictures that are there, write the report and return it."""
        report = Report(facts, faces.label_set.regions, left_out=_left_out(judges))
        scorer = Scorer(faces, self.protocol, self.samples, judges.lpips)
        scored: dict[tuple[str, str], TaskScores] = {}
        if "reconstruct" in self.tasks:
            report.reconstruct = scored["reconstruct", "reconstruct"] = scorer.reconstruct()
        if "swap" in self.tasks:
            report.swaps = {variant: scorer.swap(variant) for variant in self.protocol.swaps}
            scored |= {("swap", variant): scores for variant, scores in report.swaps.items()}
            if not any("error" in scores.means for scores in report.swaps.values()):
                report.left_out["error of swaps"] = "photos have no true answer; --protocol synthetic has"
        for task in ("random", "noise"):
            if task in self.tasks:
                for variant in self.protocol.variants(task):
                    found = scored[task, variant] = scorer.variety(task, variant)
                    report.chance[task if variant == task else f"{task} {variant}"] = found
        sets = picture_sets(faces, self.protocol, list(self.tasks))
        if judges.parser is not None:
            report.masks = score_masks(judges.parser, faces, sets, self.samples)
        for name, extractor in judges.extractors.items():
            found_sets = score_distribution(extractor, faces, sets, self.samples, cache_folder())
            if found_sets:
                report.distances[name] = found_sets
        for (task, variant), scores in scored.items():
            grid = draw_cases(scores, task, variant, faces, self.protocol, self.samples, self.out / "grids")
            if grid is not None:
                report.pictures.append(f"grids/{grid}")
        report.problems = list(faces.problems.values())
        facts["faces"] = len(faces) - len(faces.problems)
        if not facts["faces"]:
            raise ImageError("no face could be read: " + "; ".join(report.problems[:5]))
        report.write(self.out)
        return report

    def _facts(self, pipe: FacePipeline, faces: Faces, size: tuple[int, int]) -> dict[str, Any]:
        return {
            "protocol": self.protocol.as_dict(),
            "tasks": list(self.tasks),
            "weights": {
                "path": self.weights,
                "fingerprint": fingerprint(pipe.model),
                "kind": self.options.get("weights") or "averaged where there are averages",
            },
            "faces": len(faces),
            "size": list(size),
            **describe_start(),
        }


def claim(out: Path, facts: Mapping[str, Any]) -> None:
    """Write down what the pictures in `out` are made of; refuse a folder with those of something else.

    Raises:
        CheckpointError: other weights, faces, sizes or options of sampling. More variants, or samples, are welcome.
    """
    file = out / "samples" / "made_of.json"
    protocol = facts["protocol"]
    wanted = {"weights": facts["weights"]["fingerprint"], "size": facts["size"]}
    wanted |= {name: protocol[name] for name in ("data", "first", "last", "series", "sampling")}
    wanted |= {f"swap {name}": regions for name, regions in protocol["swaps"].items()}
    wanted |= {f"random {name}": regions for name, regions in protocol["random"].items()}
    wanted = json.loads(json.dumps(wanted))
    if file.is_file():
        found = json.loads(file.read_text())
        others = [
            f"{name} ({found[name]})" for name in wanted if found.get(name, wanted[name]) != wanted[name]
        ]
        if others:
            raise CheckpointError(
                f"{out} holds pictures of other {', other '.join(others)}; choose another --out, or remove it"
            )
        wanted = found | wanted
    text = json.dumps(wanted, indent=1)
    write_text(file, text)


def _left_out(judges: Judges) -> dict[str, str]:
    rows = {
        "lpips": "LPIPS",
        "inception": "KID and FID",
        "dinov2": "FD-DINOv2",
        "clip": "CMMD",
        "parser": "mask fidelity",
    }
    return {rows[name]: why for name, why in judges.missing.items()}
