"""When grids are drawn, and what they look like."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.data.image_grid import draw_grid
from ldm.data.labels import CELEBAMASK_HQ
from ldm.training.image_logger import ImageLogger
from tests.training.runs import only_run, train_here
from tests.training.tiny import TinyFaces


def test_grids_come_at_the_frequency_and_at_powers_of_two_before_it() -> None:
    assert [n for n in range(40) if ImageLogger(10, increase_log_steps=True).is_due(n)] == [
        1,
        2,
        4,
        8,
        10,
        20,
        30,
    ]
    assert [n for n in range(40) if ImageLogger(10, increase_log_steps=False).is_due(n)] == [10, 20, 30]
    with pytest.raises(ValueError, match="batch_frequency must be at least 1, got 0"):
        ImageLogger(0)


def test_small_pictures_are_enlarged_without_smoothing_and_values_rounded() -> None:
    left = torch.tensor([[-1.0, 1.0], [0.0, 3.0]]).expand(2, 3, 2, 2)
    right = torch.full((1, 3, 2, 2), 200, dtype=torch.uint8)
    grid = np.asarray(draw_grid({"left": left, "a title of several words": right}, cell=64))
    top = int(np.argmax((grid[:, 4 : 4 + 64] == np.asarray(grid[-10, 40])).all(-1).sum(1) == 32))
    cell = grid[-68:-4, 4:68]
    assert [cell[y, x, 0] for y, x in ((0, 0), (0, 63), (63, 0), (63, 63), (31, 31))] == [0, 255, 128, 255, 0]
    assert 0 < top < len(grid) - 2 * 64
    first_row = grid[-2 * 68 : -68 - 4, 72:136]
    assert (first_row == 200).all() and (grid[-68:-4, 72:136] == 255).all()


def test_titles_are_drawn_above_the_pictures() -> None:
    white = torch.ones(1, 3, 128, 128)
    titled = np.asarray(draw_grid({"sample with the reference's style": white}))
    assert (titled[: -128 - 4] < 128).any() and (titled[-128:] == 255).all()


def test_columns_of_another_shape_are_named() -> None:
    with pytest.raises(ValueError, match=r"column 'mask' must have shape .*got \(1, 19, 4, 4\)"):
        draw_grid({"mask": torch.zeros(1, 19, 4, 4)})
    with pytest.raises(ValueError, match="at least one column"):
        draw_grid({})


def test_a_run_draws_the_first_validation_pictures_with_their_masks(tmp_path: Path) -> None:
    image_logger = "lightning.callbacks.image_logger.params"
    overrides = (
        f"{image_logger}.disabled=false",
        f"{image_logger}.batch_frequency=3",
        f"{image_logger}.max_images=2",
    )
    assert train_here(tmp_path, *overrides, "lightning.trainer.max_epochs=1") == 0
    folder = only_run(tmp_path) / "images"
    assert sorted(file.name for file in folder.iterdir()) == [f"step_{n:08d}.png" for n in (1, 2, 3, 6)]
    grid = np.asarray(Image.open(folder / "step_00000006.png"))
    dataset = TinyFaces(6)
    for row in range(2):
        expected = ((dataset[row]["image"] + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        height = len(grid) - (2 - row) * 132
        assert (grid[height : height + 128 : 16, 4 : 4 + 128 : 16] == expected).all()
        mask = CELEBAMASK_HQ.colorize(dataset[row]["labels"])
        assert (grid[height : height + 128 : 16, 136 : 136 + 128 : 16] == mask).all()
    assert any((only_run(tmp_path) / "tensorboard").iterdir())
