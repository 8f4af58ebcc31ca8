"""What progress says."""

import re
from pathlib import Path

import pytest

from ldm.training.progress import clock
from tests.training.runs import train_here


def test_durations_read_as_a_clock() -> None:
    assert [clock(s) for s in (0, 59.6, 3599, 3600, 100 * 3600 + 61)] == [
        "0:00:00",
        "0:01:00",
        "0:59:59",
        "1:00:00",
        "100:01:01",
    ]
    assert clock(float("inf")) == "?"


@pytest.mark.parametrize(("steps", "manual"), [(10, False), (20, True)])
def test_a_log_file_gets_lines_with_images_per_second_and_the_time_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], steps: int, manual: bool
) -> None:
    limits = (f"lightning.trainer.max_steps={steps}", "lightning.trainer.max_epochs=null")
    every_line = ("lightning.progress.seconds=0", f"model.params.manual={str(manual).lower()}")
    assert train_here(tmp_path, *limits, *every_line, "model.params.pause=0.02") == 0
    output = capsys.readouterr().out
    line = r"step (\d+)/(\d+)  epoch \d  train/loss [\d.]+ .* ([\d.]+) images/s, (\d+)% of the time waiting "
    line += r"for data  elapsed [\d:]+  ETA ([\d:]+)"
    found = re.findall(line, output)
    # Two optimizer steps a batch with two optimizers: 20 steps are 10 batches.
    assert [int(step) for step, *_ in found] == [*range(1, 11)]
    assert {int(total) for _, total, *_ in found[1:]} == {10}
    assert all(0 < float(rate) < 4 / 0.02 for _, _, rate, *_ in found)
    assert (
        found[-1][4] == "0:00:00" and int(found[-1][3]) < 60
    )  # a batch takes 0.02 s, reading it next to none
    assert "learning rate 0.004 = 0.001 (base) x 4 (batch size) x 1 (devices)" in output
