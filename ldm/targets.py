"""YAML `target` -> class: the one place that knows the names of the original code."""

import difflib
import importlib
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

# Target names of the published YAMLs and of older versions, and where the class lives here.
TARGETS: dict[str, str] = {
    "ldm.modules.diffusionmodules.openaimodel.UNetModel": "ldm.modules.unet.UNet",
    "ldm.modules.diffusionmodules.styleenc.MultiScaleEffStyleEncoder": "ldm.modules.style_encoder.StyleEncoder",
    "ldm.models.diffusion.ddpm.LatentDiffusion": "ldm.models.diffusion.LatentDiffusion",
    "dataset.CelebAHQ": "ldm.data.datasets.celebamask.CelebAMaskHQ",
    "dataset.Cityscape": "ldm.data.datasets.cityscapes.Cityscapes",
    "dataset.DeepFashion": "ldm.data.datasets.deepfashion.DeepFashion",
    "dataset.Ade20K": "ldm.data.datasets.ade20k.ADE20K",
    "main.DataModuleFromConfig": "ldm.data.datamodule.DataModuleFromConfig",
    "main.ImageLogger": "ldm.training.image_logger.ImageLogger",
    "ldm.models.first_stage.VQModel": "ldm.models.autoencoder.VQModel",
    "ldm.models.first_stage.VQModelInterface": "ldm.models.autoencoder.VQModelInterface",
    "ldm.data.celebamask.CelebAMaskHQ": "ldm.data.datasets.celebamask.CelebAMaskHQ",
    "ldm.data.cityscapes.Cityscapes": "ldm.data.datasets.cityscapes.Cityscapes",
    "ldm.data.deepfashion.DeepFashion": "ldm.data.datasets.deepfashion.DeepFashion",
    "ldm.data.ade20k.ADE20K": "ldm.data.datasets.ade20k.ADE20K",
    "ldm.data.shards.ShardedFaces": "ldm.data.datasets.shards.ShardedFaces",
    "ldm.data.synthetic_faces.SyntheticFaces": "ldm.data.synthetic.dataset.SyntheticFaces",
}

# Packages that a target may need and that the base install leaves out: name -> what to do.
TAMING = (
    'pip install -e ".[taming]" (it needs torchvision), or use our own loss, target ldm.modules.losses.VQLoss'
)
EXTRAS = {"taming": TAMING, "torchvision": TAMING}


class ConfigError(ValueError):
    """A YAML asks for something that does not exist; the message says what would."""


def resolve(target: str) -> type:
    """Return the class that a YAML `target` names.

    Raises:
        ConfigError: no such module or class, or the target is not a class.
    """
    path = TARGETS.get(target, target)
    module_name, _, class_name = path.rpartition(".")
    if not module_name:
        raise ConfigError(
            f"target {target!r} is not a dotted path; wanted one such as {_nearest(target, TARGETS)}"
        )
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        hint = EXTRAS.get(package) or f"did you mean {_nearest(target, TARGETS)}?"
        raise ConfigError(f"target {target!r}: there is no module {error.name!r} here; {hint}") from error
    except AttributeError as error:
        module = importlib.import_module(module_name)
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        raise ConfigError(
            f"target {target!r}: {module_name} has no {class_name!r}; did you mean {_nearest(class_name, classes)}?"
        ) from error
    if not inspect.isclass(found):
        raise ConfigError(f"target {target!r} is a {type(found).__name__}, not a class")
    return found


def instantiate_from_config(config: Mapping[str, Any]) -> Any:
    """Build the object that `{target: dotted.name, params: {...}}` describes.

    Raises:
        ConfigError: `target` is missing or unknown, or `params` has a key that the class does not take.
    """
    if "target" not in config:
        raise ConfigError(f"a config needs a `target`; found only {sorted(map(str, config))}")
    cls = resolve(config["target"])
    params = {str(key): value for key, value in (config.get("params") or {}).items()}
    _check_params(cls, params, config["target"])
    return cls(**params)


def targets_in(config: Any) -> Iterator[str]:
    """Yield every `target` in a nested config, outermost first."""
    if isinstance(config, Mapping):
        if isinstance(config.get("target"), str):
            yield config["target"]
        for value in config.values():
            yield from targets_in(value)
    elif isinstance(config, list | tuple):
        for value in config:
            yield from targets_in(value)


def refuse_foreign_targets(config: Any) -> None:
    """Raise unless every target is ours or a plain torch layer: for configs that came with downloaded weights.

    Raises:
        ConfigError: a target would import code from elsewhere.
    """
    for target in targets_in(config):
        if not TARGETS.get(target, target).startswith(("ldm.", "torch.nn.")):
            raise ConfigError(
                f"the config that came with the weights names {target!r}, which is not part of this project and "
                "would run foreign code; remove it from the config, or build the model yourself"
            )


def _check_params(cls: type, params: dict[str, Any], target: str) -> None:
    """Raise ConfigError for a parameter that `cls` does not take or does not get, naming the nearest known one."""
    signature = inspect.signature(cls)
    known = signature.parameters
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in known.values())
    if not open_ended:
        for key in params:
            if key not in known:
                nearest, all_known = _nearest(key, known), ", ".join(known)
                raise ConfigError(
                    f"{target} takes no parameter {key!r}; did you mean {nearest}? It takes {all_known}"
                )
    missing = [
        name
        for name, p in known.items()
        if p.default is inspect.Parameter.empty
        and p.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        and name not in params
    ]
    if missing:
        raise ConfigError(
            f"{target} needs the parameter{'s' if len(missing) > 1 else ''} {', '.join(missing)}"
        )


def _nearest(name: str, known: Any) -> str:
    """Return the entry of `known` that looks most like `name`, quoted."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.0)
    return repr(close[0]) if close else "(nothing)"
