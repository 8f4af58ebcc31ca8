"""YAML `target` -> class: the one place that knows the names of the original code."""

import importlib
import inspect
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from ldm.closest_name import closest_name
from ldm.config_errors import explained_build
from ldm.signatures import ConfigError, check_params, format_value

__all__ = [
    "ConfigError",
    "check_config",
    "foreign_targets",
    "instantiate_from_config",
    "require_networks",
    "resolve",
    "targets_in",
]

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
    "lightning.pytorch.callbacks.EarlyStopping": "pytorch_lightning.callbacks.EarlyStopping",
    "lightning.pytorch.callbacks.LearningRateMonitor": "pytorch_lightning.callbacks.LearningRateMonitor",
    "ldm.models.first_stage.VQModel": "ldm.models.autoencoder.VQModel",
    "ldm.models.first_stage.VQModelInterface": "ldm.models.autoencoder.VQModelInterface",
    "ldm.data.celebamask.CelebAMaskHQ": "ldm.data.datasets.celebamask.CelebAMaskHQ",
    "ldm.data.cityscapes.Cityscapes": "ldm.data.datasets.cityscapes.Cityscapes",
    "ldm.data.deepfashion.DeepFashion": "ldm.data.datasets.deepfashion.DeepFashion",
    "ldm.data.ade20k.ADE20K": "ldm.data.datasets.ade20k.ADE20K",
    "ldm.data.shards.ShardedFaces": "ldm.data.datasets.shards.ShardedFaces",
    "ldm.data.synthetic_faces.SyntheticFaces": "ldm.data.synthetic.dataset.SyntheticFaces",
}

# Parameters that have been renamed: class -> {name in older YAMLs and checkpoints: name now}.
RENAMED: dict[str, dict[str, str]] = {
    "ldm.modules.moment_style_encoder.MomentStyleEncoder": {
        "frames": "region_frames",
        "coarse": "coarse_grids",
        "reduce": "input_downsampling",
    },
    "ldm.modules.unet.UNet": {"style_frames": "region_frames", "mask_shares": "area_masks"},
    "ldm.models.diffusion.LatentDiffusion": {"half_first_moment": "bf16_first_moment"},
    "ldm.models.autoencoder.VQModel": {"revive_after": "codebook_reset_after"},
    "ldm.models.autoencoder.VQModelInterface": {"revive_after": "codebook_reset_after"},
}

# Classes that a config from elsewhere may build: a model at its top, and the networks below it. A closed table: a
# prefix such as `ldm.` would let in datasets that fetch files and callbacks that write them.
MODELS = frozenset(
    {
        "ldm.models.diffusion.LatentDiffusion",
        "ldm.models.autoencoder.VQModel",
        "ldm.models.autoencoder.VQModelInterface",
        "ldm.models.segformer.SegFormer",
        "ldm.models.segmenter.EfficientFaceParser",
    }
)
NETWORKS = MODELS | {
    "ldm.modules.unet.UNet",
    "ldm.modules.style_encoder.StyleEncoder",
    "ldm.modules.moment_style_encoder.MomentStyleEncoder",
    "torch.nn.Identity",  # in the place of a loss
}
# Further classes that a run from elsewhere may build when it is resumed, validated or inspected.
BUILDABLE = NETWORKS | {
    "ldm.modules.losses.VQLoss",
    "ldm.data.datamodule.DataModuleFromConfig",
    "ldm.data.datasets.celebamask.CelebAMaskHQ",
    "ldm.data.datasets.cityscapes.Cityscapes",
    "ldm.data.datasets.deepfashion.DeepFashion",
    "ldm.data.datasets.ade20k.ADE20K",
    "ldm.data.datasets.concatenated.Concatenated",
    "ldm.data.datasets.shards.ShardedFaces",
    "ldm.data.synthetic.dataset.SyntheticFaces",
    "ldm.training.image_logger.ImageLogger",
    "ldm.training.posthoc_ema.PosthocEMA",
    "ldm.training.time_budget.TimeBudget",
    "pytorch_lightning.callbacks.EarlyStopping",
    "pytorch_lightning.callbacks.LearningRateMonitor",
}

CONFIG_KEYS = (
    "target",
    "params",
    "base_learning_rate",
    "scale_lr",
)  # the last two for main.py, in a model's config
NESTED = ("lossconfig", "train", "validation", "test")  # parameters that are `{target, params}` themselves
# Parameters that are handed on: (class, parameter) -> the class whose arguments they are.
ARGUMENTS = {
    ("ldm.models.autoencoder.VQModel", "ddconfig"): "ldm.modules.vqgan.Encoder",
    ("ldm.models.autoencoder.VQModelInterface", "ddconfig"): "ldm.modules.vqgan.Encoder",
    ("ldm.models.segformer.SegFormer", "augmentation"): "ldm.data.augmentation.Augmentation",
    ("ldm.models.segmenter.EfficientFaceParser", "augmentation"): "ldm.data.augmentation.Augmentation",
}

# Packages that a target may need and that the base install leaves out: name -> what to do.
TAMING = (
    'pip install -e ".[taming]" (it needs torchvision), or use our own loss, target ldm.modules.losses.VQLoss'
)
EXTRAS = {"taming": TAMING, "torchvision": TAMING}


def resolve(target: Any) -> type:
    """Return the class that a YAML `target` names.

    Raises:
        ConfigError: no such module or class, or the target is not a class.
    """
    if not isinstance(target, str):
        raise ConfigError(f"target must be the dotted name of a class, got {format_value(target)}")
    path = TARGETS.get(target, target)
    module_name, _, class_name = path.rpartition(".")
    if not module_name:
        raise ConfigError(
            f"target {target!r:.100} is not a dotted path, expected one such as {closest_name(target, TARGETS)}"
        )
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        hint = EXTRAS.get(package) or f"did you mean {closest_name(target, TARGETS)}?"
        raise ConfigError(
            f"target {target!r:.100}: there is no module {error.name!r} here; {hint}"
        ) from error
    except (ImportError, SyntaxError, ValueError, TypeError) as error:
        raise ConfigError(f"target {target!r:.100}: {module_name} cannot be imported ({error})") from error
    except AttributeError as error:
        module = importlib.import_module(module_name)
        classes = [name for name, value in vars(module).items() if inspect.isclass(value)]
        raise ConfigError(
            f"target {target!r:.100}: {module_name} has no {class_name!r}; did you mean "
            f"{closest_name(class_name, classes)}?"
        ) from error
    if not inspect.isclass(found):
        raise ConfigError(f"target {target!r:.100} is a {type(found).__name__}, not a class")
    return found


def instantiate_from_config(config: Mapping[str, Any]) -> Any:
    """Build the object that `{target: dotted.name, params: {...}}` describes.

    Raises:
        ConfigError: `target` is missing or unknown, or the class does not accept `params`.
    """
    cls, params = described(config, "")
    check_params(cls, params, config["target"])
    with explained_build(config["target"], params):
        return cls(**params)


def described(config: Any, where: str) -> tuple[type, dict[str, Any]]:
    """Return the class and the parameters that `{target, params}` describes.

    Args:
        config: the mapping.
        where: its place in the whole config, for errors; empty where that is not known.

    Raises:
        ConfigError: it is no such mapping, has other keys, or the target is unknown.
    """
    place = f"{where}: " if where else ""
    if not isinstance(config, Mapping):
        raise ConfigError(f"{place}expected a mapping with `target` and `params`, got {config!r:.60}")
    if "target" not in config:
        raise ConfigError(f"{place}a config needs a `target`; found only {sorted(map(str, config))}")
    for key in config:
        if key not in CONFIG_KEYS:
            raise ConfigError(
                f"{place}unknown key {key!r} next to `target`; did you mean {closest_name(key, CONFIG_KEYS)}?"
            )
    params = config.get("params")
    if params is not None and not isinstance(params, Mapping):
        raise ConfigError(f"{place}params must be a mapping, got {params!r:.60}")
    try:
        cls = resolve(config["target"])
    except ConfigError as error:
        raise ConfigError(f"{place}{error}") from error
    return cls, _renamed(cls, {str(key): value for key, value in (params or {}).items()}, place)


def _renamed(cls: type, params: dict[str, Any], place: str) -> dict[str, Any]:
    """Return the parameters by their present names; raise ConfigError for one that is given by both."""
    names = RENAMED.get(f"{cls.__module__}.{cls.__qualname__}", {})
    for old in names.keys() & params.keys():
        if names[old] in params:
            raise ConfigError(f"{place}{old} is the former name of {names[old]}, got both; remove {old}")
    return {names.get(key, key): value for key, value in params.items()}


def check_config(config: Any, where: str) -> None:
    """Check `{target, params}` and every one below it against the classes that they name; build nothing.

    Raises:
        ConfigError: names the key by its path from `where`, the value, what is expected, and the nearest
            known key.
    """
    cls, params = described(config, where)
    target = config["target"]
    check_params(cls, params, f"{where}.params ({target})")
    for key, value in params.items():
        here = f"{where}.params.{key}"
        path = f"{cls.__module__}.{cls.__qualname__}"
        if isinstance(value, Mapping) and (arguments_of := ARGUMENTS.get((path, key))):
            check_params(resolve(arguments_of), {str(name): part for name, part in value.items()}, here)
        elif (value or value == {}) and (
            key.endswith("_config") or key in NESTED or (isinstance(value, Mapping) and "target" in value)
        ):
            check_config(value, here)
        elif key == "datasets" and isinstance(value, list | tuple):
            for number, part in enumerate(value):
                check_config(part, f"{here}[{number}]")


def targets_in(config: Any) -> Iterator[Any]:
    """Yield every `target` in a nested config, outermost first."""
    for _, target in located_targets(config):
        yield target


def located_targets(config: Any, where: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted path of every mapping with a `target` in a nested config, and that target, outermost first."""
    if isinstance(config, Mapping):
        if "target" in config:
            yield where, config["target"]
        for key, value in config.items():
            yield from located_targets(value, f"{where}.{key}" if where else str(key))
    elif isinstance(config, list | tuple):
        for number, value in enumerate(config):
            yield from located_targets(value, f"{where}[{number}]")


def require_networks(config: Any) -> None:
    """Raise unless every target is a network of this project: for configs that came with weights.

    Such a config is untrusted, so it may only name the classes of NETWORKS, with one of MODELS at its top: no
    dataset, no callback, no layer of torch.

    Raises:
        ConfigError: it names another class; nothing was imported or built.
    """
    if not isinstance(config, Mapping) or "target" not in config:
        found = sorted(map(str, config)) if isinstance(config, Mapping) else type(config).__name__
        raise ConfigError(
            f"the config that came with the weights has no model with a `target`; found {found}"
        )
    for position, (where, target) in enumerate(located_targets(config, "model")):
        table = MODELS if position == 0 else NETWORKS
        if canonical(target) not in table:
            raise ConfigError(
                f"the config that came with the weights has {where}.target: {format_value(target)}, which is not one "
                f"of this project's {'models' if position == 0 else 'networks'}, so nothing was built. There are: "
                f"{', '.join(sorted(table))}"
            )


def foreign_targets(config: Any, packages: Collection[str] = ()) -> dict[str, str]:
    """Return the targets in a config that are neither in the project's own table nor in one of these packages.

    The keys are the places of the targets in the config.

    Raises:
        ConfigError: a target is not the dotted name of a class.
    """
    found = {}
    for where, target in located_targets(config):
        parts = target.split(".") if isinstance(target, str) else []
        if len(parts) < 2 or not all(part.isidentifier() for part in parts):
            raise ConfigError(
                f"{where}.target must be the dotted name of a class, got {format_value(target)}"
            )
        if canonical(target) not in BUILDABLE and parts[0] not in packages:
            found[where] = target
    return found


def canonical(target: Any) -> str:
    """Return the path of the class that a target names, of old names the one that it has now."""
    return TARGETS.get(target, target) if isinstance(target, str) else repr(target)
