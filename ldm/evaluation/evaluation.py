"""A whole evaluation: generate missing images, compute metrics, write the report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ldm.atomic_files import write_text
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.fingerprint import fingerprint
from ldm.data.images import ImageError
from ldm.evaluation.extractors import cache_folder
from ldm.evaluation.faces import Faces, open_faces
from ldm.evaluation.grids import draw_cases
from ldm.evaluation.metric_networks import MetricNetworks, load_metric_networks
from ldm.evaluation.plan import output_folders
from ldm.evaluation.processes import ProcessGroup
from ldm.evaluation.protocol import Protocol, resolve_sampling
from ldm.evaluation.report import Report
from ldm.evaluation.sampling import generate_missing
from ldm.evaluation.score_sets import image_sets, score_distribution, score_masks
from ldm.evaluation.score_tasks import Scorer, TaskScores
from ldm.output_files import check_outputs
from ldm.pipeline import FacePipeline
from ldm.training.run_folder import describe_start

# Network -> title of the metrics that are left out without it.
METRICS = {
    "lpips": "LPIPS",
    "inception": "KID and FID",
    "dinov2": "FD-DINOv2",
    "clip": "CMMD",
    "efficientnet": "KID and FD (EfficientNet)",
    "parser": "mask fidelity",
}


@dataclass
class Evaluation:
    """Settings of an evaluation.

    Attributes:
        weights: model, as in `FacePipeline.from_pretrained`.
        protocol: faces, variants and sampling options.
        out: folder of the report and the images; existing images are kept.
        tasks: some of `ldm.evaluation.protocol.TASKS`.
        networks_folder: folder to look for metric networks in.
        networks: paths of metric networks by name, see `ldm.evaluation.metric_networks`.
        batch_size: images sampled at once.
        options: further arguments of `FacePipeline.from_pretrained`.
    """

    weights: str
    protocol: Protocol
    out: Path
    tasks: Sequence[str]
    networks_folder: Path
    networks: Mapping[str, str]
    batch_size: int
    options: Mapping[str, Any]

    @property
    def samples(self) -> Path:
        """Folder of the generated images."""
        return self.out / "samples"

    def run(self) -> Report | None:
        """Generate, score and report; return None in processes other than rank 0.

        Raises:
            ValueError, OSError: the weights, the data, a metric network or the output folder cannot be used.
        """
        with ProcessGroup() as group:
            pipe = self._load_pipeline(group)
            size = self.protocol.size or pipe.size
            faces = open_faces(self.protocol, pipe.label_set, size)
            networks = MetricNetworks()
            facts: dict[str, Any] = {}
            if group.rank == 0:
                facts = self._facts(pipe, faces, size)
                # Before sampling, which may take days.
                networks = load_metric_networks(
                    self.networks_folder, self.networks, pipe.device, pipe.label_set
                )
                self._check_outputs(faces, size)
                claim(self.out, facts)
            group.wait()
            done = generate_missing(
                pipe,
                faces,
                self.protocol,
                self.tasks,
                self.samples,
                batch_size=self.batch_size,
                rank=group.rank,
                world_size=group.world_size,
            )
            group.wait()
            if group.rank:
                return None
            print(f"{done} images generated in this process, in {self.samples}", flush=True)
            return self.score(faces, networks, facts)

    def _load_pipeline(self, group: ProcessGroup) -> FacePipeline:
        """Load the model, in the precision that rank 0 chooses.

        "auto" is that of the images in `out`, if there are any: a measurement could choose differently each
        time.
        """
        precision = self.options.get("precision", "auto")
        if group.rank:
            precision = "float32"  # spares the measurement of "auto"
        elif precision == "auto":
            precision = recorded_settings(self.out).get("precision", precision)
        options = {"device": group.device, **self.options, "precision": precision}
        pipe = FacePipeline.from_pretrained(self.weights, **options)
        pipe.sampler.dtype = getattr(torch, group.agree(_name(pipe.sampler.dtype)))
        return pipe

    def score(self, faces: Faces, networks: MetricNetworks, facts: dict[str, Any]) -> Report:
        """Compute the metrics of the images in `samples`, write the report and return it.

        Raises:
            ImageError: no face could be read.
        """
        left_out = {METRICS[name]: reason for name, reason in networks.missing.items()}
        report = Report(facts, faces.label_set.regions, left_out=left_out)
        scores = self._score_tasks(report, Scorer(faces, self.protocol, self.samples, networks.lpips))
        sets = image_sets(faces, self.protocol, list(self.tasks))
        if networks.parser is not None:
            report.masks = score_masks(networks.parser, faces, sets, self.samples)
        for name, extractor in networks.extractors.items():
            distances = score_distribution(extractor, faces, sets, self.samples, cache_folder())
            if distances:
                report.distances[name] = distances
        for (task, variant), found in scores.items():
            grid = draw_cases(found, task, variant, faces, self.protocol, self.samples, self.out / "grids")
            if grid is not None:
                report.pictures.append(f"grids/{grid}")
        report.problems = list(faces.problems.values())
        facts["faces"] = len(faces) - len(faces.problems)
        if not facts["faces"]:
            raise ImageError("no face could be read: " + "; ".join(report.problems[:5]))
        report.write(self.out)
        return report

    def _score_tasks(self, report: Report, scorer: Scorer) -> dict[tuple[str, str], TaskScores]:
        """Add the scores of all tasks to the report; return them by (task, variant)."""
        scores: dict[tuple[str, str], TaskScores] = {}
        if "reconstruct" in self.tasks:
            report.reconstruct = scores["reconstruct", "reconstruct"] = scorer.reconstruct()
        if "swap" in self.tasks:
            report.swaps = {variant: scorer.swap(variant) for variant in self.protocol.swaps}
            scores |= {("swap", variant): found for variant, found in report.swaps.items()}
            if not any("error" in found.means for found in report.swaps.values()):
                report.left_out["error of swaps"] = (
                    "photos have no ground truth of swaps; --protocol synthetic has"
                )
        for task in ("random", "noise"):
            if task in self.tasks:
                for variant in self.protocol.variants(task):
                    found = scores[task, variant] = scorer.diversity(task, variant)
                    report.chance[task if variant == task else f"{task} {variant}"] = found
        return scores

    def _check_outputs(self, faces: Faces, size: tuple[int, int]) -> None:
        """Check that the results can be written and replace no input; raise OutputError otherwise."""
        images = [
            self.samples / folder / f"{name}{ending}.png"
            for folder in output_folders(self.protocol, self.tasks)
            for ending in self._endings(folder)
            for name in faces.names
        ]
        missing = sum(not image.exists() for image in images)
        report = [self.out / "report.json", self.out / "report.md", self.out / "grids" / "reconstruct.png"]
        named = [
            Path(path) for path in (self.weights, self.options.get("config"), *self.networks.values()) if path
        ]
        # A PNG of a face takes one to two bytes a pixel, but not every face has every region.
        check_outputs([*report, *images], [*faces.inputs, *named], missing * size[0] * size[1] // 2)

    def _endings(self, folder: str) -> list[str]:
        """Return what follows a face's name in the file names of a folder."""
        several = folder.split("/")[0] in ("random", "noise")
        return [f"_{sample}" for sample in range(self.protocol.samples)] if several else [""]

    def _facts(self, pipe: FacePipeline, faces: Faces, size: tuple[int, int]) -> dict[str, Any]:
        return {
            "protocol": self.protocol.as_dict(),
            "tasks": list(self.tasks),
            "weights": {
                "path": self.weights,
                "fingerprint": fingerprint(pipe.model),
                "kind": self.options.get("weights") or "EMA if available",
            },
            "faces": len(faces),
            "faces_digest": faces.digest(),
            "size": list(size),
            "precision": _name(pipe.sampler.dtype),
            "sampling": self.protocol.resolved_sampling,
            **describe_start(),
        }


def claim(out: Path, facts: Mapping[str, Any]) -> None:
    """Record what the images in `out` are generated from, in samples/made_of.json.

    Raises:
        CheckpointError: the folder has images of other weights, faces, sizes, precision or sampling options.
            Further variants and samples may be added.
    """
    protocol = facts["protocol"]
    settings = {"weights": facts["weights"]["fingerprint"]}
    settings |= {name: facts[name] for name in ("size", "precision", "sampling")}
    settings |= {name: protocol[name] for name in ("data", "first", "last", "series")}
    settings["faces"] = f"{facts['faces']} faces, digest {facts['faces_digest']}"
    settings |= {f"swap {name}": regions for name, regions in protocol["swaps"].items()}
    settings |= {f"random {name}": regions for name, regions in protocol["random"].items()}
    settings = json.loads(json.dumps(settings))  # tuples become lists, as in the file
    recorded = recorded_settings(out)
    different = [
        f"{name} ({recorded[name]})"
        for name in settings
        if recorded.get(name, settings[name]) != settings[name]
    ]
    if different:
        raise CheckpointError(
            f"{out} has images of other {', other '.join(different)}; choose another --out, or remove it"
        )
    write_text(_record(out), json.dumps(recorded | settings, indent=1))


def recorded_settings(out: Path) -> dict[str, Any]:
    """Return what the images in `out` are generated from; empty without images.

    Files of earlier versions lack precision and faces, and have the sampling options without their defaults.
    """
    file = _record(out)
    recorded = json.loads(file.read_text()) if file.is_file() else {}
    return recorded | ({"sampling": resolve_sampling(recorded["sampling"])} if "sampling" in recorded else {})


def _record(out: Path) -> Path:
    return out / "samples" / "made_of.json"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
