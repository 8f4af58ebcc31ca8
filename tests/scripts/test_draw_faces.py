"""scripts/draw_faces.py: files and errors."""

from pathlib import Path

import pytest

from ldm.data.datasets.celebamask import CelebAMaskHQ
from scripts import draw_faces


def test_output_is_the_layout_of_the_dataset(tmp_path: Path) -> None:
    assert draw_faces.main([str(tmp_path), "--count", "3", "--size", "16", "--start", "7"]) == 0
    assert [pair.name for pair in CelebAMaskHQ(16, str(tmp_path)).pairs] == ["000007", "000008", "000009"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["out", "--size", "30"], "size must be a multiple of 4"),
        (["file/out"], "expected a folder"),
        (["out", "--count", "2000", "--size", "1048576"], "the results need at least"),
    ],
)
def test_errors(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    with pytest.raises(SystemExit) as left:
        draw_faces.main(options)
    assert left.value.code == 2 and message in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
