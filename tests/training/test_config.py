"""Merging YAMLs, and what is said about keys that do not exist."""

from pathlib import Path

import pytest
import pytorch_lightning as pl

from ldm.targets import ConfigError
from ldm.training.config import load_config, parameters_of, to_yaml, trainer_options
from ldm.training.learning_rate import scaled_learning_rate

BASE = """
model: {target: a.B, base_learning_rate: 4.5e-6, params: {width: 8, layers: [1, 2, 3], nothing: null}}
data: {target: main.DataModuleFromConfig, params: {batch_size: 4}}
lightning: {trainer: {max_steps: 10, benchmark: true}}
"""


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base.yaml"
    path.write_text(BASE)
    return path


def test_later_files_and_then_overrides_win(base: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.yaml"
    later.write_text("model: {params: {width: 16, layers: [5]}}\nlightning: {trainer: {max_steps: 20}}")
    config = load_config([base, later], ["lightning.trainer.max_steps=30", "data.params.batch_size=2"])
    assert config["model"]["params"] == {"width": 16, "layers": [5], "nothing": None}
    assert config["model"]["base_learning_rate"] == 4.5e-6
    assert config["lightning"]["trainer"] == {"max_steps": 30, "benchmark": True}
    assert config["data"]["params"]["batch_size"] == 2


def test_interpolations_are_resolved_after_the_overrides(base: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.yaml"
    later.write_text("model: {params: {depth: '${model.params.width}'}}")
    assert load_config([base, later], ["model.params.width=32"])["model"]["params"]["depth"] == 32


def test_the_written_config_reads_back_to_the_same(base: Path, tmp_path: Path) -> None:
    config = load_config([base])
    (tmp_path / "again.yaml").write_text(to_yaml(config))
    assert load_config([tmp_path / "again.yaml"]) == config


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("modle.params.width=1", r"unknown key 'modle'; did you mean 'model'"),
        ("model.parms.width=1", r"unknown key 'model.parms'; did you mean 'model.params'"),
        ("lightning.trianer.max_steps=1", r"did you mean 'lightning.trainer'"),
        ("lightning.checkpoint.every_n_step=1", r"did you mean 'lightning.checkpoint.every_n_steps'"),
        (
            "lightning.callbacks.grid.parms.cell=1",
            r"'lightning.callbacks.grid.parms'; expected target and params",
        ),
        ("lightning.trainer=fast", r"'lightning.trainer' is 'fast'; expected a mapping"),
        ("max_steps", r"override 'max_steps': expected dotted.key=value"),
        ("model.params.depth=${model.params.dpth}", r"dpth"),
    ],
)
def test_keys_that_do_not_exist_are_named(base: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        # A trainer that is no mapping is noticed where its options are read.
        trainer_options(load_config([base], [override]), ["max_steps", "benchmark"])


def test_files_that_cannot_be_read_are_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no file .*bsae.yaml; did you mean .*base.yaml"):
        load_config([tmp_path / "bsae.yaml"])
    broken, listed, empty = tmp_path / "x.yaml", tmp_path / "y.yaml", tmp_path / "z.yaml"
    broken.write_text("model: {target: [")
    with pytest.raises(ConfigError, match=r"x.yaml is not YAML: .*line "):
        load_config([broken])
    listed.write_text("- 1")
    with pytest.raises(ConfigError, match=r"y.yaml must be a mapping"):
        load_config([listed])
    empty.write_text("data: {target: a.B}")
    with pytest.raises(ConfigError, match=r"no model.target"):
        load_config([empty])


def test_every_option_of_the_trainer_passes_but_those_that_are_ours(base: Path) -> None:
    known = parameters_of(pl.Trainer.__init__)
    assert {"max_epochs", "precision", "gradient_clip_val", "strategy", "devices"} <= set(known)
    assert trainer_options(load_config([base]), known) == {"max_steps": 10, "benchmark": True}
    for override, message in (
        ("max_stpes=1", "no option 'max_stpes'; did you mean 'max_steps'"),
        ("gpus=1", "no option 'gpus'; did you mean devices"),
        ("logger=false", "logger cannot be set"),
        ("default_root_dir=x", "use --logdir"),
        ("enable_checkpointing=false", "checkpoints are always written; see lightning.checkpoint"),
    ):
        with pytest.raises(ConfigError, match=message):
            trainer_options(load_config([base], [f"lightning.trainer.{override}"]), known)


def test_the_learning_rate_is_the_product_that_the_formula_says() -> None:
    factors = {"batch size": 6, "devices": 2, "accumulate_grad_batches": 3}
    rate, formula = scaled_learning_rate(1e-6, factors, True)
    assert rate == pytest.approx(3.6e-5)
    assert (
        formula
        == "learning rate 3.6e-05 = 1e-06 (base) x 6 (batch size) x 2 (devices) x 3 (accumulate_grad_batches)"
    )
    assert scaled_learning_rate(1e-6, factors, False) == (1e-6, "learning rate 1e-06 (base, not scaled)")
    for wrong in ("fast", 0, -1e-6, True, None):
        with pytest.raises(ConfigError, match="must be a number above 0"):
            scaled_learning_rate(wrong, factors, True)


def test_another_target_does_not_inherit_the_params_of_the_former(base: Path) -> None:
    override = "model={target: c.D, params: {depth: 3}}"
    assert load_config([base], [override])["model"]["params"] == {"depth": 3}
    subclass = load_config([base], ["model.target=c.D"])["model"]
    assert subclass["target"] == "c.D" and subclass["params"]["width"] == 8
    same = load_config([base], ["model={target: a.B, params: {depth: 3}}"])
    assert same["model"]["params"] == {"width": 8, "layers": [1, 2, 3], "nothing": None, "depth": 3}
    renamed = "data={target: ldm.data.datamodule.DataModuleFromConfig, params: {num_workers: 0}}"
    assert load_config([base], [renamed])["data"]["params"] == {"batch_size": 4, "num_workers": 0}
