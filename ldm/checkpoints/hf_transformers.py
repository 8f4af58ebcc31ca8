"""Load networks of the transformers library (an optional dependency) from a local folder or the hub."""

from pathlib import Path
from typing import Any

from ldm.checkpoints.errors import CheckpointError
from ldm.checkpoints.hub import announce, hub_name


def load_transformer(kind: str, path: str | Path, expected: str) -> Any:
    """Load a network in evaluation mode.

    Args:
        kind: its class in transformers.
        path: a folder, or owner/name on the hub.
        expected: what the error says if `path` holds something else.

    Raises:
        CheckpointError: no such folder, transformers is not installed, or another kind of file.
    """
    name = hub_name(path)
    if name is None and not Path(path).is_dir():
        raise CheckpointError(f"{path}: there is no such folder ({expected})")
    try:
        import transformers
    except ImportError as error:
        raise CheckpointError(
            f'{path}: reading it needs the transformers library; pip install -e ".[evaluation]"'
        ) from error
    if name is not None:
        announce(name)
    try:
        return getattr(transformers, kind).from_pretrained(str(path), trust_remote_code=False).eval()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {expected} ({str(error).splitlines()[0]})") from error
