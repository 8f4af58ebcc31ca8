"""scripts/prepare_celebamask.py on small fake downloads."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from ldm.data.datasets.celebamask import CelebAMaskHQ, merge_parts
from ldm.data.images import ImageError
from ldm.data.label_maps import load_labels
from ldm.data.labels import CELEBAMASK_HQ
from scripts.prepare_celebamask import main

ROOT = Path(__file__).parents[2]
IDS = (0, 1, 1999, 2000, 27_999, 28_000, 29_999)


def command(*arguments: str | Path) -> list[str]:
    return [
        sys.executable,
        str(ROOT / "scripts" / "prepare_celebamask.py"),
        *map(str, arguments),
        "--workers",
        "2",
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the script in a process of its own."""
    return subprocess.run(command(*arguments), env=environment(), capture_output=True, text=True, timeout=120)


def prepare(*arguments: str | Path) -> int:
    """Run the script in this process, which is faster."""
    return main([*map(str, arguments), "--workers", "2"])


def part(download: Path, number: int, region: str, rows: slice, mode: str = "RGB", side: int = 32) -> None:
    """Write a part mask: white rows on black."""
    mask = np.zeros((side, side), np.uint8)
    mask[rows] = 255
    path = download / "CelebAMask-HQ-mask-anno" / str(number // 2000) / f"{number:05d}_{region}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).convert(mode).save(path)


def face(download: Path, number: int) -> None:
    """Write a face: hair in rows 0..9, nose in rows 12..13, cloth from row 24 on, skin elsewhere from row 5 on."""
    photos = download / "CelebA-HQ-img"
    photos.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(photos / f"{number}.jpg")
    part(download, number, "skin", slice(5, 32))
    part(download, number, "nose", slice(12, 14), mode="L")
    part(download, number, "hair", slice(0, 10))
    part(download, number, "cloth", slice(24, 32), mode="1")


EXPECTED_ROWS = [13] * 10 + [1] * 2 + [2] * 2 + [1] * 10 + [18] * 8


@pytest.fixture
def download(tmp_path: Path) -> Path:
    for number in IDS:
        face(tmp_path / "CelebAMask-HQ", number)
    return tmp_path / "CelebAMask-HQ"


def output_of(process: "subprocess.Popen[str]", photo: Path) -> str:
    """Wait for a process that may be reading a pipe; kill it after a minute."""
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError):  # the pipe has no reader
            os.close(os.open(photo, os.O_WRONLY | os.O_NONBLOCK))
        time.sleep(0.05)
    try:
        return process.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        raise AssertionError(f"the script hung:\n{process.communicate()[1]}") from None


def wait_until_files_settle(folder: Path) -> None:
    deadline = time.monotonic() + 60
    before: list[Path] | None = None
    while (now := sorted(folder.rglob("*"))) != before:
        assert time.monotonic() < deadline
        before = now
        time.sleep(0.3)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_output_is_the_layout_of_the_dataset(download: Path, tmp_path: Path) -> None:
    result = run(download, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "7 of the 30000 photos" in result.stderr
    assert f"wrote 7 faces to {tmp_path / 'out'}" in result.stdout
    train = CelebAMaskHQ(16, str(tmp_path / "out" / "train"))
    test = CelebAMaskHQ(16, str(tmp_path / "out" / "test"))
    assert [pair.name for pair in train.pairs] == ["0", "1", "1999", "2000", "27999"]
    assert [pair.name for pair in test.pairs] == ["28000", "29999"]
    labels = load_labels(tmp_path / "out" / "test" / "labels" / "29999.png", CELEBAMASK_HQ)
    assert torch.equal(labels, torch.tensor(EXPECTED_ROWS, dtype=torch.uint8)[:, None].expand(32, 32))
    photo = tmp_path / "out" / "train" / "images" / "1.jpg"
    assert photo.read_bytes() == (download / "CelebA-HQ-img" / "1.jpg").read_bytes()
    with Image.open(tmp_path / "out" / "train" / "labels" / "0.png") as file:
        assert file.mode == "P"


def test_later_parts_overwrite_earlier_ones(tmp_path: Path) -> None:
    for label, region in enumerate(CELEBAMASK_HQ.regions[1:], start=1):
        part(tmp_path, 4321, region, slice(label, 32))
    labels = merge_parts(tmp_path / "CelebAMask-HQ-mask-anno" / "2", 4321)
    assert labels[:, 0].tolist() == list(range(19)) + [18] * 13
    part(tmp_path, 4321, "hat", slice(0, 4), side=16)
    with pytest.raises(ImageError, match=r"04321_hat\.png differs in size"):
        merge_parts(tmp_path / "CelebAMask-HQ-mask-anno" / "2", 4321)


def test_resumes_with_missing_and_partial_files(download: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert prepare(download, out, "--size", "32") == 0
    whole = contents(out)
    with Image.open(out / "train" / "images" / "0.jpg") as file:
        assert file.size == (32, 32)
    (out / "train" / "labels" / "1.png").unlink()
    (out / "test" / "images" / "28000.jpg").unlink()
    (out / "train" / "images" / "2000.jpg").write_bytes(b"")
    (out / "train" / "labels" / ".1.png.77-abcd.partial").write_bytes(b"partial")
    modified = (out / "train" / "labels" / "0.png").stat().st_mtime_ns
    assert prepare(download, out, "--size", "32") == 0
    assert contents(out) == whole
    assert (out / "train" / "labels" / "0.png").stat().st_mtime_ns == modified


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted_runs_resume(tmp_path: Path, stop: signal.Signals) -> None:
    download, out = tmp_path / "download", tmp_path / "out"
    for number in range(100):
        face(download, number)
    pipe = download / "CelebA-HQ-img" / "50.jpg"
    pipe.unlink()
    os.mkfifo(pipe)  # blocks the script until the signal
    process = subprocess.Popen(
        command(download, out, "--size", "600"),
        env=environment(),
        stderr=subprocess.PIPE,
        text=True,
        # Background jobs of a shell ignore Ctrl-C, and so would this process.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while len(list(out.glob("train/images/*.jpg"))) < 5 and process.poll() is None:
        if time.monotonic() > deadline:
            process.kill()
        time.sleep(0.02)
    assert process.poll() is None
    process.send_signal(stop)
    errors = output_of(process, pipe)
    if stop != signal.SIGKILL:
        assert process.returncode == 130
        assert "run the same command again" in errors
        assert not list(out.rglob("*.partial"))
    wait_until_files_settle(out)  # after SIGKILL, the workers end on their own
    done = contents(out)
    assert len([name for name in done if name.endswith(".jpg")]) < 100
    for path in out.glob("train/images/*.jpg"):
        with Image.open(path) as file:
            file.load()
    if stop != signal.SIGKILL:
        return  # resume only once, after SIGKILL
    pipe.unlink()
    face(download, 50)
    assert prepare(download, out, "--size", "600") == 0
    assert len(CelebAMaskHQ(16, str(out / "train"))) == 100
    assert not list(out.rglob("*.partial"))
    after = contents(out)
    assert all(after[name] == data for name, data in done.items() if not name.endswith(".partial"))


def test_celeba_split(download: Path, tmp_path: Path) -> None:
    originals = dict(zip(IDS, (162_769, 162_770, 182_636, 182_637, 202_598, 0, 119_613), strict=True))
    lines = ["idx orig_idx orig_file", *(f"{n}   {o}  {o + 1:06d}.jpg" for n, o in originals.items())]
    (download / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines) + "\n")
    assert prepare(download, tmp_path / "out", "--split", "celeba") == 0
    found = {
        split: [p.name for p in CelebAMaskHQ(8, str(tmp_path / "out" / split)).pairs]
        for split in ("train", "val")
    }
    assert found == {"train": ["0", "28000", "29999"], "val": ["1", "1999"]}
    assert sorted(path.name for path in (tmp_path / "out" / "test" / "labels").iterdir()) == [
        "2000.png",
        "27999.png",
    ]


def test_celeba_split_errors(download: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mapping = download / "CelebA-HQ-to-CelebA-mapping.txt"
    assert prepare(download, tmp_path / "out", "--split", "celeba") == 1
    stderr = capsys.readouterr().err
    assert f"--split celeba requires {mapping}" in stderr
    mapping.write_text("idx orig_idx orig_file\n0 119613 119614.jpg\n1 5 9.jpg\n")
    assert prepare(download, tmp_path / "out", "--split", "celeba") == 1
    stderr = capsys.readouterr().err
    assert "line 3: expected a line such as" in stderr
    mapping.write_text("idx orig_idx orig_file\n0 119613 119614.jpg\n")
    assert prepare(download, tmp_path / "out", "--split", "celeba") == 1
    stderr = capsys.readouterr().err
    assert "lacks 6 photos, the first is 1.jpg" in stderr
    assert not (tmp_path / "out").exists()


def test_names_make_the_small_set_of_the_configs(download: Path, tmp_path: Path, capsys) -> None:
    """They lie where configs/*/celebamask-hq-64.yaml look for them: in images/ and labels/, without a split."""
    out = tmp_path / "mini"
    assert prepare(download, out, "--names", "0-1, 1999") == 0
    config = OmegaConf.load(ROOT / "configs/latent-diffusion/celebamask-hq-64.yaml")
    train = config.data.params.train.params | {"path": str(out), "last": 1}
    validation = config.data.params.validation.params | {"path": str(out), "first": 1999}
    assert [pair.name for pair in CelebAMaskHQ(**train).pairs] == ["0", "1"]
    assert [pair.name for pair in CelebAMaskHQ(**validation).pairs] == ["1999"]
    assert prepare(download, out, "--names", "0-1") == 1
    assert "choose another folder" in capsys.readouterr().err
    assert prepare(download, tmp_path / "other", "--names", "0-2") == 1
    assert "2.jpg" in capsys.readouterr().err
    for mistake in ("first", "9-0"):
        with pytest.raises(SystemExit, match="2"):
            prepare(download, out, "--names", mistake)
        assert f"got '{mistake}'" in capsys.readouterr().err


def test_damaged_files_are_listed(download: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo = download / "CelebA-HQ-img" / "1.jpg"
    photo.write_bytes(photo.read_bytes()[:2000])
    for path in (download / "CelebAMask-HQ-mask-anno" / "14").glob("28000_*"):
        path.unlink()
    assert prepare(download, tmp_path / "out") == 1
    stderr = capsys.readouterr().err
    assert "2 of 7 faces failed" in stderr
    assert "1.jpg is truncated or damaged" in stderr
    assert "has no part of face 28000" in stderr
    assert len((tmp_path / "out" / "prepare_errors.txt").read_text().splitlines()) == 2
    assert (tmp_path / "out" / "test" / "images" / "29999.jpg").is_file()
    face(download, 1)
    face(download, 28_000)
    assert prepare(download, tmp_path / "out") == 0
    assert not (tmp_path / "out" / "prepare_errors.txt").exists()


def test_wrong_folders_and_other_settings(
    download: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(tmp_path / "nowhere", tmp_path / "out") == 1
    stderr = capsys.readouterr().err
    assert f"{tmp_path / 'nowhere'} has no folder CelebA-HQ-img; unpack CelebAMask-HQ.zip" in stderr
    assert prepare(tmp_path, tmp_path / "out") == 0  # the parent of the download
    assert prepare(download, tmp_path / "out", "--size", "32") == 1
    stderr = capsys.readouterr().err
    assert "has files of the settings" in stderr
    assert "choose another folder" in stderr
    settings = tmp_path / "out" / "prepare.json"
    settings.write_text(settings.read_text()[:9])
    assert prepare(download, tmp_path / "out") == 1
    assert f"{settings} is damaged; delete it" in capsys.readouterr().err
    settings.unlink()
    assert prepare(download, tmp_path / "out") == 0


def test_outputs_are_checked_first(
    download: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert prepare(download, tmp_path / "file" / "out") == 1
    assert "expected a folder" in capsys.readouterr().err
    (tmp_path / "out" / "train").mkdir(parents=True)
    (tmp_path / "out" / "train" / "images").symlink_to(download / "CelebA-HQ-img")
    photo = download / "CelebA-HQ-img" / "1.jpg"
    photo.write_bytes(b"")
    before = contents(download)
    assert prepare(download, tmp_path / "out", "--size", "16") == 1
    assert "would replace" in capsys.readouterr().err
    assert contents(download) == before and not (tmp_path / "out" / "prepare.json").exists()


def test_help_does_not_import_torch() -> None:
    assert "--split {ids,celeba}" in run("--help").stdout
    probe = "import sys; import scripts.prepare_celebamask; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", probe], cwd=ROOT).returncode == 0
