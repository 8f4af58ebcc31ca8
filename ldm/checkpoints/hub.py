"""Models on the Hugging Face hub, named owner/name."""

import os
import re
import sys
from pathlib import Path

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.file_type import SUFFIXES

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
FILES = ["*.safetensors", "*.yaml"]  # of our models on the hub


def hub_name(path: str | os.PathLike[str]) -> str | None:
    """Return owner/name if `path` can only be a model on the hub, else None.

    It can not if it exists, if its first part is an existing folder (a mistyped `runs/NAME`), or if it has
    the suffix of a file.
    """
    name = os.fspath(path)
    if not NAME.fullmatch(name) or name.endswith((*SUFFIXES, ".yaml", ".yml", ".json")):
        return None
    return None if os.path.lexists(name) or os.path.lexists(name.partition("/")[0]) else name


def announce(name: str) -> None:
    """Print that a model will be requested from the hub."""
    print(f"{name}: not a local path; looking it up on the Hugging Face hub", file=sys.stderr, flush=True)


def download(name: str) -> Path:
    """Download a model of ours and return its local folder.

    Raises:
        CheckpointError: huggingface_hub is not installed, the hub is unreachable, or it has no such model.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
    except ImportError as error:
        raise CheckpointError(
            f"{name}: there is no such file or folder; to load a model from the Hugging Face hub, pip install "
            "huggingface_hub"
        ) from error
    announce(name)
    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except RepositoryNotFoundError as error:
        reason = "the hub has no model of this name, or it is private"
        raise CheckpointError(f"{name}: neither a local path nor a model on the hub; {reason}") from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"{name}: not a local path, and the Hugging Face hub cannot be reached; check the path or the network"
        ) from error
    except Exception as error:  # those of the HTTP client and of the disk have no common base class
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise CheckpointError(f"{name}: the download from the Hugging Face hub failed ({reason})") from error
