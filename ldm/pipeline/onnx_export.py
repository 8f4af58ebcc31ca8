"""Export of a pipeline's networks to ONNX."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldm.atomic_files import write_text

if TYPE_CHECKING:
    from ldm.models.diffusion import LatentDiffusion
    from ldm.parsing import FaceParser
    from ldm.pipeline.face_pipeline import FacePipeline

OPSET = 20
NETWORKS = ("encode", "style", "condition", "denoise", "decode")
PARSER = "parser"
DESCRIPTION = "model.json"
LIMIT = 2**31 - 2**24  # bytes of weights that fit into one protobuf file


def export_onnx(pipe: FacePipeline, folder: Path, face_parser: FaceParser | None = None) -> list[Path]:
    """Export a pipeline on the CPU, and a face parser.

    Writes encode.onnx, style.onnx, condition.onnx, denoise.onnx, decode.onnx and, with `face_parser`,
    parser.onnx (names, shapes and dtypes of their inputs and outputs: docs/onnx.md), and model.json with the
    regions, the image size, the latent shape and alpha_bar. The batch size is dynamic; images have the size
    that the model was trained at.

    Returns:
        The files written.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    model, B = pipe.model, 2  # an example batch of 1 would make the batch size static
    image, labels = torch.zeros(B, 3, *pipe.size), torch.zeros(B, *pipe.size, dtype=torch.long)
    with torch.no_grad():
        z, mask = model.encode_first_stage(image), pipe.sampler.mask(labels)
        style = model.get_learned_conditioning(image, mask)
        size = (z.shape[-2], z.shape[-1])
        prepared = model.prepare({"context": style, "y": mask}, size)["prepared"]
    tensors = list(_tensors(prepared))
    conditioning = {f"conditioning_{i}": tensor for i, tensor in enumerate(tensors)}
    noisy = {"latent": z, "timestep": torch.zeros(B, dtype=torch.long), **conditioning}
    description: dict[str, Any] = {
        "regions": list(pipe.label_set.regions),
        "image_size": list(pipe.size),
        "latent_shape": list(z.shape[1:]),
        "alpha_bar": model.schedule.alpha_bar.tolist(),
    }
    files = [
        _export(folder / "encode.onnx", _Encode(model), {"image": image}, ["latent"]),
        _export(folder / "style.onnx", _Style(model), {"image": image, "labels": labels}, ["style"]),
        _export(
            folder / "condition.onnx",
            _Condition(model, size),
            {"style": style, "labels": labels},
            list(conditioning),
        ),
        _export(folder / "denoise.onnx", _Denoise(model, prepared), noisy, ["noise"]),
        _export(folder / "decode.onnx", _Decode(model), {"latent": z}, ["image"]),
    ]
    if face_parser is not None:
        photo = {"image": torch.zeros(B, 3, *face_parser.size)}
        files.append(_export(folder / f"{PARSER}.onnx", _Parse(face_parser), photo, ["labels"]))
        description |= {
            "parser_regions": list(face_parser.label_set.regions),
            "parser_size": list(face_parser.size),
        }
    write_text(folder / DESCRIPTION, json.dumps(description) + "\n")
    return [*files, folder / DESCRIPTION]


class _Encode(nn.Module):
    """Image (B, 3, H, W) in [-1, 1] -> latent (B, C, h, w)."""

    def __init__(self, model: LatentDiffusion) -> None:
        super().__init__()
        self.first_stage, self.scale_factor = model.first_stage_model, model.scale_factor

    def forward(self, image: Tensor) -> Tensor:
        return self.scale_factor * self.first_stage.encode(image)


class _Style(nn.Module):
    """Image (B, 3, H, W) and label map (B, H, W) -> style codes (B, R, D)."""

    def __init__(self, model: LatentDiffusion) -> None:
        super().__init__()
        self.style_encoder, self.regions = model.cond_stage_model, model.num_regions

    def forward(self, image: Tensor, labels: Tensor) -> Tensor:
        return self.style_encoder(image, _one_hot(labels, self.regions))


class _Condition(nn.Module):
    """Style codes (B, R, D) and label map (B, H, W) -> the UNet's conditioning, as a flat tuple."""

    def __init__(self, model: LatentDiffusion, size: tuple[int, int]) -> None:
        super().__init__()
        self.unet, self.size = model.unet, size

    def forward(self, style: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        mask = _one_hot(labels, self.unet.num_regions)
        return tuple(_tensors(self.unet.condition(style, mask, self.size)))


class _Denoise(nn.Module):
    """Noisy latent (B, C, h, w), timestep (B,) and conditioning -> noise (B, C, h, w)."""

    def __init__(self, model: LatentDiffusion, prepared: Any) -> None:
        super().__init__()
        self.unet, self.parameterization, self._structure = model.unet, model.parameterization, prepared
        self._levels = model._levels

    def forward(self, latent: Tensor, timestep: Tensor, *conditioning: Tensor) -> Tensor:
        prepared = _rebuilt(self._structure, iter(conditioning))
        out = self.unet.denoise(latent, timestep, prepared)
        return self.parameterization.eps(out, latent, self._levels(timestep))


class _Decode(nn.Module):
    """Latent (B, C, h, w) -> image (B, 3, H, W) in [-1, 1]."""

    def __init__(self, model: LatentDiffusion) -> None:
        super().__init__()
        self.first_stage, self.scale_factor = model.first_stage_model, model.scale_factor

    def forward(self, latent: Tensor) -> Tensor:
        return self.first_stage.decode(latent / self.scale_factor).clamp(-1, 1)


class _Parse(nn.Module):
    """Image (B, 3, H, W) in [-1, 1], of the parser's size -> label map (B, H, W)."""

    _to_label: Tensor
    _mean: Tensor
    _deviation: Tensor

    def __init__(self, parser: FaceParser) -> None:
        super().__init__()
        self.network = parser.network
        for name in ("_to_label", "_mean", "_deviation"):
            self.register_buffer(name, getattr(parser, name))

    def forward(self, image: Tensor) -> Tensor:
        logits = self.network(((image + 1) / 2 - self._mean) / self._deviation)
        logits = F.interpolate(logits, size=image.shape[-2:], mode="bilinear", align_corners=False)
        return self._to_label[logits.argmax(1)]


def _one_hot(labels: Tensor, regions: int) -> Tensor:
    """Return one-hot masks (B, R, H, W); labels without a region give zeros."""
    return (labels[:, None] == torch.arange(regions)[:, None, None]).float()


def _tensors(value: Any) -> Iterator[Tensor]:
    """Yield the tensors of nested lists and tuples in order."""
    if isinstance(value, Tensor):
        yield value
    elif value is not None:
        for part in value:
            yield from _tensors(part)


def _rebuilt(structure: Any, tensors: Iterator[Tensor]) -> Any:
    """Return nested lists and named tuples with other tensors in the order of `_tensors`."""
    if structure is None:
        return None
    if isinstance(structure, Tensor):
        return next(tensors)
    parts = [_rebuilt(part, tensors) for part in structure]
    return parts if isinstance(structure, list) else type(structure)(*parts)


def _export(file: Path, network: nn.Module, inputs: dict[str, Tensor], outputs: list[str]) -> Path:
    """Export one network with a dynamic batch size."""
    batch = torch.export.Dim("batch")
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    with torch.no_grad(), _quiet():
        torch.onnx.export(
            network.eval(),
            tuple(inputs.values()),
            file,
            input_names=list(inputs),
            output_names=outputs,
            opset_version=OPSET,
            dynamo=True,
            external_data=weights > LIMIT,
            dynamic_shapes=_dynamic(network, [{0: batch}] * len(inputs)),
            verbose=False,
        )
    return file


def _dynamic(network: nn.Module, shapes: list[dict[int, Any]]) -> tuple[Any, ...]:
    """Return the dynamic shapes in the structure of forward's parameters."""
    if isinstance(network, _Denoise):  # latent, timestep, *conditioning
        return (*shapes[:2], tuple(shapes[2:]))
    return tuple(shapes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the exporter's messages about its own deprecations and packages that it does not need."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
