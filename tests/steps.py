"""One step of each training and of sampling, ready to be taken, to look for what waits for the device."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ldm.models.segmenter import EfficientFaceParser
from ldm.pipeline.image_sampler import ImageSampler, SamplingInputs
from ldm.pipeline.options import Sampling
from ldm.pipeline.pretrained import label_set_of
from ldm.sampling import sample
from ldm.sampling.locking import lock
from ldm.targets import instantiate_from_config
from tests import small

Batch = dict[str, Any]
# Without JPEG, whose encoder needs the images on the host.
AUGMENTATION = {
    "degrees": 10,
    "scale": [0.5, 1.5],
    "shift": 0.1,
    "color": 0.2,
    "blur": 1.0,
    "grayscale": 0.5,
    "low_light": 1.0,
    "paste": 0.5,
}
DISCRIMINATOR = {
    "target": "ldm.modules.losses.VQLoss",
    "params": {"disc_weight": 0.5, "disc_channels": 8, "disc_num_layers": 1},
}


def log(name: str, value: Any, prog_bar: bool = False, **options: Any) -> None:
    """Stand for Lightning's `log`, which reads the values of its progress bar after every batch."""
    assert not prog_bar, f"{name} in the progress bar"


def log_dict(values: dict[str, Any], **options: Any) -> None:
    """Stand for Lightning's `log_dict`."""
    for name, value in values.items():
        log(name, value, **options)


def moved(batch: Batch, device: torch.device) -> Batch:
    """Return the tensors of a batch on a device."""
    return {name: value.to(device) for name, value in batch.items() if torch.is_tensor(value)}


def first_stage(device: torch.device, adversarial: bool = False) -> tuple[Any, Batch]:
    """Return a first stage that resets its unused codes, and a batch."""
    loss = {"lossconfig": DISCRIMINATOR} if adversarial else {}
    torch.manual_seed(0)
    config = small.first_stage(codebook_reset_after=2, n_embed=64, **loss)
    config["params"]["scale_equivariance"] = 0.0 if adversarial else 0.25
    model = instantiate_from_config(config).train().to(device)
    if adversarial:  # as from a Trainer
        parts = (model.decoder, model.loss.discriminator)
        optimizers = [torch.optim.SGD(part.parameters(), 1e-3) for part in parts]
        model.optimizers, model.manual_backward = lambda: optimizers, lambda loss: loss.backward()
    return model, moved(small.batch(2), device)


def parser(device: torch.device, **augmentation: float) -> tuple[Any, Batch]:
    """Return a face parser that augments its batches, and a batch."""
    torch.manual_seed(0)
    model = EfficientFaceParser(widths=[8] * 5, augmentation={**AUGMENTATION, **augmentation})
    return model.train().to(device), moved(small.batch(2, size=64), device)


def training_step(model: Any, batch: Batch, number: int) -> None:
    """Take a step without its optimizer: on a CPU, Adam reads its step count there, as it does for a GPU."""
    model.log, model.log_dict = log, log_dict
    loss = model.training_step(batch, number)
    if model.automatic_optimization:
        loss.backward()


def sampling(device: torch.device, solver: str) -> tuple[Callable[[Tensor], Tensor], Tensor]:
    """Return what samples four steps of a guided, locked and previewed edit, and the noise."""
    model = small.sensitive(small.diffusion()).to(device)
    sampler = ImageSampler(model, label_set_of({}, model), torch.float32)
    faces, size = moved(small.batch(2), device), (4, 4)
    codes = torch.randn(2, model.num_regions, model.unet.context_dim, device=device)
    options = Sampling(guidance=1.5, guidance_interval=(0.5, 5.0))
    with torch.no_grad():
        predict = sampler._predict(SamplingInputs(faces["labels"], codes), options, size)
        free = torch.ones(2, 1, *size, device=device)
        predict = lock(predict, model.schedule, model.encode_first_stage(faces["image"]), free)
    predict = sampler._with_preview(predict, lambda decode: None)
    noise = torch.randn(2, model.channels, *size, device=device)
    eta = 1.0 if solver == "ddim" else 0.0
    generators = [torch.Generator().manual_seed(i) for i in range(2)]
    return lambda x: sample(
        predict, x, model.schedule, steps=4, solver=solver, eta=eta, generator=generators
    ), noise
