"""Networks in the format of the transformers library, which is an extra: a local folder, or owner/name on the hub."""

from pathlib import Path
from typing import Any

from ldm.checkpoints.errors import CheckpointError


def load_transformer(kind: str, path: str | Path, wanted: str) -> Any:
    """Load the class `kind` of transformers from `path`, in evaluation mode.

    Raises:
        CheckpointError: transformers is not installed, or `path` holds something else than `wanted`, in words.
    """
    try:
        import transformers
    except ImportError as error:
        raise CheckpointError(
            f'{path}: reading it needs the transformers library; pip install -e ".[evaluation]"'
        ) from error
    try:
        return getattr(transformers, kind).from_pretrained(str(path), trust_remote_code=False).eval()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {wanted} ({str(error).splitlines()[0]})") from error
