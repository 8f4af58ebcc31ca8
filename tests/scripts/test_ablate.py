"""scripts/ablate.py: the variants build, and each becomes a row of the table."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import main
from ldm.checkpoints.io import write_checkpoint
from ldm.targets import instantiate_from_config
from ldm.training.config import load_config
from scripts import ablate

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "configs" / "ablation" / "recipe.yaml"
PLAN = OmegaConf.to_container(OmegaConf.load(RECIPE))


@pytest.mark.parametrize("name", PLAN["variants"])
def test_variants_build(name: str, capsys, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    base, settings = ablate.variant(PLAN, name)
    assert main.main(["-b", *base, "--dry-run", *settings]) == 0
    assert "total" in capsys.readouterr().out


def test_table_and_resuming(tmp_path: Path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(ROOT)
    model = load_config([ROOT / base for base in PLAN["base"]], complete=False)["model"]["params"]
    model["first_stage_config"]["params"].pop("ckpt_path")
    torch.manual_seed(0)
    first_stage = instantiate_from_config(model["first_stage_config"])
    file = write_checkpoint(tmp_path / "first", first_stage.state_dict(), {})
    plan = tmp_path / "plan.yaml"
    short = ["lightning.trainer.max_steps=2", "lightning.trainer.val_check_interval=2"]
    OmegaConf.save({**PLAN, "variants": {"eps": PLAN["variants"]["eps"]}}, plan)
    command = [str(plan), "--out", str(tmp_path / "out"), *short]
    command += [f"model.params.first_stage_config.params.ckpt_path={file}"]
    command += ["data.params.validation.params.length=8", "data.params.num_workers=0"]
    plan.write_text(plan.read_text().replace("'63'", "'3'"))
    assert ablate.main(command) == 0
    table = capfd.readouterr().out.splitlines()[-3:]
    assert table[0].startswith("| variant | PSNR") and table[2].startswith("| eps |")
    assert (tmp_path / "out" / "table.md").read_text().splitlines() == table
    assert ablate.main(command) == 0
    assert capfd.readouterr().out.splitlines() == table


def test_unknown_variant(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        ablate.main([str(RECIPE), "--out", str(tmp_path), "--only", "epsilon"])
    assert "epsilon" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "match"),
    [(None, "there is no such file"), ("[1, 2]", "must be a mapping with base"), ("a: [", "is not YAML")],
)
def test_an_unusable_study_is_one_sentence(text: str | None, match: str, tmp_path: Path, capsys) -> None:
    study = tmp_path / "mine.yaml"
    if text is not None:
        study.write_text(text)
    with pytest.raises(SystemExit) as stop:
        ablate.main([str(study), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2 and match in capsys.readouterr().err.splitlines()[-1]
