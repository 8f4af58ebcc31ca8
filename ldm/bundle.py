"""Files that come with the code: weights, configs and example faces, in a checkout or in an installed wheel."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
INSIDE = PACKAGE / "bundled"  # setup.py copies the folders here when it builds a wheel
ROOT = INSIDE if INSIDE.is_dir() else PACKAGE.parent


def find_config(path: Path) -> Path:
    """Return an existing config file for a path, or the path itself if there is none.

    A path that exists is used as it is. Otherwise it is looked up in the bundled configs, by its path
    (`configs/face-parser/faces.yaml`, `face-parser/faces.yaml`) or by its name alone (`faces.yaml`). Names
    that occur more than once mean the one in `latent-diffusion/`.
    """
    if path.exists() or path.is_absolute():
        return path
    configs = ROOT / "configs"
    places = [ROOT / path, configs / path, configs / "latent-diffusion" / path]
    if len(path.parts) == 1:
        places += sorted(configs.glob(f"*/{path}"))
    return next((place for place in places if place.is_file()), path)
