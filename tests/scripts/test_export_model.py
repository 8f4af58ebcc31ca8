"""What export_model.py writes, and who takes it."""

import pytest
import torch

from ldm.checkpoints.io import read_checkpoint, write_checkpoint
from ldm.pipeline import FacePipeline
from ldm.targets import instantiate_from_config
from scripts import export_model
from tests import small


def test_a_folder_with_the_averaged_weights_in_half_precision(tmp_path, capsys) -> None:
    config = small.diffusion()
    model = small.sensitive(config)
    with torch.no_grad():
        model.model.diffusion_model.out[2].bias += 1  # the last weights differ from their averages
    run = write_checkpoint(tmp_path / "run.safetensors", model.state_dict(), {"model": config}, {"step": 7})
    assert export_model.main([str(run), str(tmp_path / "out")]) == 0
    assert "ema weights" in capsys.readouterr().out
    written = read_checkpoint(tmp_path / "out")
    assert written.step == 7 and not any(key.startswith("model_ema") for key in written.state_dict)
    kernel = written.state_dict["model.diffusion_model.out.2.weight"]
    assert kernel.dtype == torch.float16 and (tmp_path / "out" / "config.yaml").is_file()

    batch = small.batch(2)
    pipes = [FacePipeline.from_pretrained(path, device="cpu") for path in (run, tmp_path / "out")]
    codes = [pipe.read_style(batch["image"], batch["labels"])[0].codes for pipe in pipes]
    torch.testing.assert_close(codes[0], codes[1], atol=5e-3, rtol=0)

    start = instantiate_from_config(small.diffusion(ckpt_path=str(tmp_path / "out")))
    weight = start.model.diffusion_model.out[2].weight
    assert torch.equal(weight, kernel.float())
    with start.ema_scope():  # the average starts from them too
        assert torch.equal(start.model.diffusion_model.out[2].weight, kernel.float())


def test_what_is_no_model_is_said_in_a_sentence(tmp_path, capsys) -> None:
    with pytest.raises(SystemExit):
        export_model.main([str(tmp_path / "none"), str(tmp_path / "out")])
    assert "there is no such file" in capsys.readouterr().err and not (tmp_path / "out").exists()
