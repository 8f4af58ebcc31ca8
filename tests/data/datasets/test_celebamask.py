"""CelebAMaskHQ: pairing by name, selection, flips, and errors of folders and files."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ldm.data.datasets.celebamask import CelebAMaskHQ
from ldm.data.datasets.folders import FolderError, numeric_order
from ldm.data.images import ImageError, save_png
from ldm.data.label_maps import save_labels
from ldm.data.labels import CELEBAMASK_HQ
from ldm.targets import instantiate_from_config

SIDE = 16


def make_pair(root: Path, name: str | int, value: int = 0, suffix: str = "png") -> None:
    """Write an image of one gray value, and a label map: left eye on the left half, hair elsewhere."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    pixels = np.full((SIDE, SIDE, 3), value, np.uint8)
    pixels[:, : SIDE // 2, 0] = 255  # the left half has a red channel of 255
    Image.fromarray(pixels).save(root / "images" / f"{name}.{suffix}", quality=100)
    labels = np.full((SIDE, SIDE), 13, np.uint8)
    labels[:, : SIDE // 2] = 4
    save_labels(root / "labels" / f"{name}.png", labels, CELEBAMASK_HQ)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """Write pairs 0..11; image N has 10 N in its blue channel."""
    for number in range(12):
        make_pair(tmp_path / "faces", number, 10 * number)
    return tmp_path / "faces"


def test_items(faces: Path) -> None:
    dataset = CelebAMaskHQ(size=8, path=str(faces))
    assert len(dataset) == 12
    assert dataset.label_set is CELEBAMASK_HQ
    item = dataset[3]
    assert set(item) == {"image", "labels", "name"}
    assert item["image"].shape == (3, 8, 8)
    assert item["image"].dtype == torch.float32
    assert item["labels"].shape == (8, 8)
    assert item["labels"].dtype == torch.uint8
    batch = next(iter(DataLoader(dataset, batch_size=4)))
    assert batch["image"].shape == (4, 3, 8, 8)
    assert batch["labels"].shape == (4, 8, 8)
    assert batch["name"] == ["0", "1", "2", "3"]
    with pytest.raises(IndexError):
        dataset[12]


def test_pairs_by_name_in_numeric_order(faces: Path) -> None:
    dataset = CelebAMaskHQ(size=SIDE, path=str(faces))
    assert [item["name"] for item in (dataset[i] for i in range(12))] == [str(n) for n in range(12)]
    blue = [round(float((dataset[i]["image"][2, 0, 0] + 1) * 127.5)) for i in range(12)]
    assert blue == [10 * n for n in range(12)]
    assert sorted(["10", "9", "a2", "a10", "1", "²"], key=numeric_order)[:3] == ["1", "9", "10"]


def test_suffixes_of_photos(tmp_path: Path) -> None:
    for name, suffix in (("0", "jpg"), ("1", "jpeg"), ("2", "JPG"), ("3", "png")):
        make_pair(tmp_path, name, suffix=suffix)
    (tmp_path / "images" / "Thumbs.db").write_text("x")
    (tmp_path / "images" / ".4.jpg.12.partial").write_text("x")
    assert len(CelebAMaskHQ(SIDE, str(tmp_path))) == 4


def test_config_of_the_published_yamls(faces: Path) -> None:
    config = {
        "target": "dataset.CelebAHQ",
        "params": {"size": 8, "path": str(faces), "keys": ["image", "label"]},
    }
    assert set(instantiate_from_config(config)[0]) == {"image", "labels", "name"}


@pytest.mark.parametrize(
    ("keys", "entries"),
    [
        (["image"], {"image"}),
        (["segmentation"], {"labels"}),
        (["mask", "image"], {"image", "labels"}),
        (["label"], {"labels"}),
        (None, {"image", "labels"}),
    ],
)
def test_keys_select_the_entries(faces: Path, keys: list[str] | None, entries: set[str]) -> None:
    assert set(CelebAMaskHQ(8, str(faces), keys)[0]) == entries | {"name"}


def test_folders_that_are_not_loaded_need_not_exist(faces: Path) -> None:
    (faces / "labels").rename(faces / "elsewhere")
    assert len(CelebAMaskHQ(8, str(faces), ["image"])) == 12
    with pytest.raises(
        FolderError, match=r"labels does not exist; .*faces has 2 folders \(elsewhere, images\)"
    ):
        CelebAMaskHQ(8, str(faces))


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["imgae"], "unknown key 'imgae'; did you mean 'image'"),
        (["segmentatoin"], "did you mean 'segmentation'"),
        ([], "keys is empty"),
        ("image", r"keys must be a list, such as \[image\], got the string 'image'"),
    ],
)
def test_invalid_keys(faces: Path, keys: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CelebAMaskHQ(8, str(faces), keys)


def test_first_last_and_ids(faces: Path, tmp_path: Path) -> None:
    def names(**choice: object) -> list[str]:
        return [pair.name for pair in CelebAMaskHQ(8, str(faces), **choice).pairs]  # type: ignore[arg-type]

    assert names(first=9, last=11) == ["9", "10", "11"]
    assert names(last=1) == ["0", "1"]
    assert names(first=11) == ["11"]
    listing = tmp_path / "ids.txt"
    listing.write_text("# held out\n10\n2.png  # a comment\n\n7.jpg\n")
    assert names(ids=str(listing)) == ["10", "2", "7"]
    with pytest.raises(ValueError, match="ids cannot be combined"):
        names(ids=str(listing), first=3)
    listing.write_text("2\n99\n98\n")
    with pytest.raises(FolderError, match=r"ids\.txt lists 2 files \(99, 98\) that .*images does not have"):
        names(ids=str(listing))
    listing.write_text("2\n3\n2\n")
    with pytest.raises(FolderError, match=r"ids\.txt lists 1 name \(2\) more than once"):
        names(ids=str(listing))
    listing.write_text("# nothing\n")
    with pytest.raises(FolderError, match=r"ids\.txt has no names"):
        names(ids=str(listing))
    with pytest.raises(FolderError, match=r"absent\.txt does not exist"):
        names(ids=str(tmp_path / "absent.txt"))


def test_first_and_last_outside_the_range(faces: Path) -> None:
    with (
        pytest.warns(UserWarning, match=r"first is 50, but the files in .* are numbered 0\.\.11"),
        pytest.warns(UserWarning, match=r"last is 60, but"),
        pytest.raises(FolderError, match=r"has no file numbered in \[50, 60\], only 0\.\.11"),
    ):
        CelebAMaskHQ(8, str(faces), first=50, last=60)
    with pytest.warns(UserWarning, match="last is 899, but"):
        assert len(CelebAMaskHQ(8, str(faces), first=2, last=899)) == 10
    make_pair(faces, "anna")
    with pytest.raises(FolderError, match=r"select by number, but .*anna\.png"):
        CelebAMaskHQ(8, str(faces), first=2)


def test_unpaired_files_outside_the_selection_are_ignored(faces: Path) -> None:
    (faces / "labels" / "11.png").unlink()
    with pytest.raises(FolderError, match="1 image "):
        CelebAMaskHQ(8, str(faces))
    assert len(CelebAMaskHQ(8, str(faces), last=10)) == 11


def test_unpaired_files_are_listed_with_their_count(faces: Path) -> None:
    for number in range(2, 10):
        (faces / "labels" / f"{number}.png").unlink()
    with pytest.raises(
        FolderError,
        match=r"8 images \(2\.png, 3\.png, 4\.png, 5\.png, 6\.png \.\.\.\) in .*images without a label map",
    ):
        CelebAMaskHQ(8, str(faces))
    for number in range(0, 10):
        (faces / "images" / f"{number}.png").unlink()
    with pytest.raises(FolderError, match=r"2 label maps \(0\.png, 1\.png\) in .*labels without an image"):
        CelebAMaskHQ(8, str(faces))


def test_missing_and_empty_folders(faces: Path, tmp_path: Path) -> None:
    with pytest.raises(
        FolderError, match=r"nowhere.images does not exist, nor does .*nowhere; check the path"
    ):
        CelebAMaskHQ(8, str(tmp_path / "nowhere"))
    with pytest.raises(
        FolderError, match=rf"did you mean path: {re.escape(str(tmp_path / 'out' / 'train'))}"
    ):
        faces.rename(tmp_path / "train")
        (tmp_path / "out").mkdir()
        (tmp_path / "train").rename(tmp_path / "out" / "train")
        CelebAMaskHQ(8, str(tmp_path / "out"))
    empty = tmp_path / "empty"
    (empty / "images").mkdir(parents=True)
    with pytest.raises(FolderError, match=r"images has no file \*\.jpg .* \*\.avif$"):
        CelebAMaskHQ(8, str(empty))
    (empty / "images" / "0.gif").write_text("x")
    with pytest.raises(FolderError, match=r"; it has 1 other file \(0\.gif\)"):
        CelebAMaskHQ(8, str(empty))


def test_repeated_names_and_empty_files(faces: Path) -> None:
    (faces / "images" / "3.jpg").write_bytes(b"")
    with pytest.raises(FolderError, match=r"have the same name; keep one of them"):
        CelebAMaskHQ(8, str(faces))
    (faces / "images" / "3.png").unlink()
    with pytest.raises(FolderError, match=r"images has 1 file \(3\.jpg\) of 0 bytes"):
        CelebAMaskHQ(8, str(faces))


def test_unusable_files_are_found_on_creation(faces: Path) -> None:
    save_png(faces / "labels" / "5.png", np.full((SIDE, SIDE), 23, np.uint8))
    with pytest.raises(
        ImageError, match=r"label 23 in .*labels.5\.png; CelebAMask-HQ has labels in \[0, 18\]"
    ):
        CelebAMaskHQ(8, str(faces))
    save_png(faces / "labels" / "5.png", np.full((SIDE, SIDE, 3), 1, np.uint8))
    with pytest.raises(ImageError, match=r"labels.5\.png: 1 of its 1 colors are not"):
        CelebAMaskHQ(8, str(faces))
    save_png(faces / "labels" / "5.png", np.full((SIDE, SIDE + 4), 1, np.uint8))
    with pytest.raises(
        ImageError, match=r"labels.5\.png has 20 x 16 pixels, but .*images.5\.png has 16 x 16"
    ):
        CelebAMaskHQ(8, str(faces))
    save_png(faces / "labels" / "5.png", np.full((SIDE // 2, SIDE // 2), 1, np.uint8))
    assert len(CelebAMaskHQ(8, str(faces))) == 12  # same aspect ratio, as in the dataset
    path = faces / "images" / "5.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"images.5\.png is truncated"):
        CelebAMaskHQ(8, str(faces))


def test_headers_of_all_files_are_checked_on_creation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(200):
        make_pair(tmp_path, number)
    photo, mask = tmp_path / "images" / "100.png", tmp_path / "labels" / "100.png"  # not decoded on creation
    whole = {file: file.read_bytes() for file in (photo, mask)}
    CelebAMaskHQ(8, str(tmp_path))
    rgb, wide = Image.new("RGB", (SIDE, SIDE)), Image.new("L", (2 * SIDE, SIDE))
    for file, write, message in (
        (mask, lambda: rgb.convert("1").save(mask), "has mode 1"),
        (mask, lambda: rgb.convert("L").save(mask, "JPEG"), "is a JPEG"),
        (mask, lambda: wide.save(mask), "expected the same aspect ratio"),
        (photo, lambda: photo.write_bytes(b"GIF8 or not"), "is no PNG or JPEG image"),
    ):
        write()
        with pytest.raises(ImageError, match=rf"100\.png.* {message}"):
            CelebAMaskHQ(8, str(tmp_path))
        file.write_bytes(whole[file])
    upright = Image.new("RGB", (SIDE, 2 * SIDE))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees it is as wide as the label map
    wide.save(mask)
    for kind in ("PNG", "JPEG"):
        upright.save(photo, kind, exif=exif)
        CelebAMaskHQ(8, str(tmp_path))
    monkeypatch.setattr("ldm.data.images.MAX_PIXELS", SIDE * SIDE)
    with pytest.raises(ImageError, match=r"100\.png has .* pixels"):
        CelebAMaskHQ(8, str(tmp_path))


def test_check_all_lists_every_unusable_file(tmp_path: Path) -> None:
    for number in range(200):  # more than are decoded on creation
        make_pair(tmp_path, number)
    dataset = CelebAMaskHQ(8, str(tmp_path))
    assert dataset.check_all() == []
    for number in (1, 100):
        save_png(tmp_path / "labels" / f"{number}.png", np.full((SIDE, SIDE), 19, np.uint8))
    errors = dataset.check_all()
    assert [re.search(r"(\d+)\.png", error).group(1) for error in errors] == ["1", "100"]  # type: ignore[union-attr]
    with pytest.raises(ImageError, match="label 19"):
        dataset[100]
    batches = iter(DataLoader(dataset, batch_size=100, num_workers=1))
    with pytest.raises(ImageError, match=r"label 19 in .*labels.1\.png"):  # the same message from a worker
        next(batches)
    with pytest.raises(ImageError, match=r"label 19 in .*labels.100\.png"):
        next(batches)
    assert next(batches, None) is None  # lets the worker end at once


def flips(dataset: CelebAMaskHQ) -> list[bool]:
    return [bool(dataset[i]["labels"][0, 0] == 13) for i in range(len(dataset))]


def test_flips_swap_left_and_right_labels(faces: Path) -> None:
    plain = CelebAMaskHQ(SIDE, str(faces))
    dataset = CelebAMaskHQ(SIDE, str(faces), horizontal_flip=True)
    assert not any(flips(plain))
    index = flips(dataset).index(True)
    flipped, upright = dataset[index], plain[index]
    assert torch.equal(flipped["image"], upright["image"].flip(-1))
    assert flipped["labels"][0, -1] == CELEBAMASK_HQ.index("r_eye")  # the left half's l_eye, now on the right
    assert torch.equal(CELEBAMASK_HQ.flip(flipped["labels"]), upright["labels"])
    same = flips(dataset).index(False)
    assert torch.equal(dataset[same]["image"], plain[same]["image"])


def test_flips_are_a_function_of_seed_epoch_and_index(faces: Path) -> None:
    dataset = CelebAMaskHQ(8, str(faces), horizontal_flip=True)
    epochs = []
    for epoch in range(10):
        dataset.set_epoch(epoch)
        torch.manual_seed(epoch)
        epochs.append(flips(dataset))
        assert epochs[-1] == flips(copy.deepcopy(dataset))
    assert np.array(epochs).mean() == pytest.approx(0.5, abs=0.2)
    assert all(0 < column.mean() < 1 for column in np.array(epochs).T)
    dataset.set_epoch(3)
    assert flips(dataset) == epochs[3]
    assert dataset[-1]["labels"].equal(dataset[11]["labels"])
    assert flips(CelebAMaskHQ(8, str(faces), horizontal_flip=True, seed=1)) != epochs[0]


def test_persistent_workers_see_the_new_epoch(faces: Path) -> None:
    dataset = CelebAMaskHQ(8, str(faces), horizontal_flip=True)
    loader = DataLoader(dataset, batch_size=12, num_workers=1, persistent_workers=True)
    for epoch in (0, 1, 2):
        dataset.set_epoch(epoch)
        batch = next(iter(loader))
        assert (batch["labels"][:, 0, 0] == 13).tolist() == flips(dataset)
