"""Save a model as a folder with a model card, and upload it to the Hugging Face hub."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor

from ldm.atomic_files import write_text
from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.io import for_use, write_checkpoint
from ldm.checkpoints.state_dict import without_first_stage_file

if TYPE_CHECKING:
    from ldm.pipeline.face_pipeline import FacePipeline

CARD = "README.md"
METADATA: dict[str, Any] = {
    "library_name": "sca-dm",
    "pipeline_tag": "image-to-image",
    "tags": ["latent-diffusion", "semantic-image-synthesis", "face-editing"],
}
TEXT = """
# {title}

A model for controllable face synthesis from semantic masks (SCA-DM,
[arXiv 2403.12743](https://arxiv.org/abs/2403.12743)): {size} pixels, {regions} regions ({label_set}),
{parameters:.1f} M parameters.

```python
from ldm.pipeline import PhotoEditor

editor = PhotoEditor.from_pretrained("{name}")
photo = editor.open("family.jpg")
photo.edit(0, style=photo.null_style(), regions=["hair"], seed=0).save("family_edited.jpg")
```

Edit photos of people who agree to it, and say that an edited photo is edited.
"""


def lean_config(config: Mapping[str, Any], state_dict: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config to save with weights: the model, and the data config for image size and label set.

    Raises:
        CheckpointError: the first stage is neither in the weights nor in a file.
    """
    lean: dict[str, Any] = {
        "model": without_first_stage_file(for_use(config.get("model", config)), state_dict)
    }
    if "data" in config:
        lean["data"] = config["data"]
    return lean


def save_pretrained(
    pipe: FacePipeline, folder: str | Path, *, dtype: torch.dtype, name: str, metadata: Mapping[str, Any]
) -> Path:
    """Write weights, config and model card; see `FacePipeline.save_pretrained`.

    Raises:
        CheckpointError: the pipeline was not loaded from files and has no config.
    """
    if pipe.config is None:
        raise CheckpointError(
            "this pipeline has no config; use FacePipeline.from_pretrained, or set pipe.config"
        )
    folder, state = Path(folder), pipe.model.state_dict()
    folder.mkdir(parents=True, exist_ok=True)
    write_checkpoint(folder, state, lean_config(pipe.config, state), dtype=dtype)
    if not (folder / CARD).exists():  # keep an existing card
        write_text(folder / CARD, model_card(pipe, name, metadata))
    return folder


def push_to_hub(
    pipe: FacePipeline,
    name: str,
    *,
    dtype: torch.dtype,
    metadata: Mapping[str, Any],
    private: bool | None,
    token: str | None,
    message: str,
) -> str:
    """Upload a model in one commit and return its URL; see `FacePipeline.push_to_hub`.

    Raises:
        CheckpointError: huggingface_hub is not installed, the card is invalid, or the upload failed.
    """
    try:
        from huggingface_hub import HfApi, ModelCard
    except ImportError as error:
        raise CheckpointError('to upload to the Hugging Face hub, pip install "sca-dm[hub]"') from error
    try:
        with tempfile.TemporaryDirectory() as place:
            folder = save_pretrained(pipe, place, dtype=dtype, name=name, metadata=metadata)
            ModelCard.load(folder / CARD).validate()  # before anything is created on the hub
            api = HfApi(token=token)
            api.create_repo(name, private=private, exist_ok=True)
            return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message=message))
    except CheckpointError:
        raise
    except Exception as error:  # those of the HTTP client and of the disk have no common base class
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{name}: the upload to the Hugging Face hub failed ({reason})") from error


def model_card(pipe: FacePipeline, name: str, metadata: Mapping[str, Any]) -> str:
    """Return a model card with metadata for the hub.

    Args:
        pipe: the model.
        name: owner/name on the hub, or the path of the folder.
        metadata: entries such as license, license_name and datasets; they replace those of METADATA.
    """
    text = TEXT.format(
        title=name.rpartition("/")[2] or name,
        name=name,
        size=" x ".join(map(str, pipe.size)),
        regions=len(pipe.label_set),
        label_set=pipe.label_set.name,
        parameters=sum(parameter.numel() for parameter in pipe.model.parameters()) / 1e6,
    )
    return f"---\n{yaml.safe_dump({**METADATA, **metadata}, sort_keys=False)}---\n{text}"
