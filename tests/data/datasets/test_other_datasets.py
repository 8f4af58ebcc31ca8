"""Cityscapes, ADE20K and DeepFashion: official layouts, label values, non-square sizes."""

from pathlib import Path

import numpy as np
import pytest
import torch

from ldm.data.datasets.ade20k import ADE20K
from ldm.data.datasets.cityscapes import Cityscapes
from ldm.data.datasets.deepfashion import DeepFashion
from ldm.data.datasets.folders import FolderError
from ldm.data.images import ImageError, save_png
from ldm.data.labels import ADE20K as ADE20K_REGIONS
from ldm.data.labels import CITYSCAPES, CITYSCAPES_TRAIN, DEEPFASHION
from ldm.targets import instantiate_from_config


def photo(path: Path, height: int, width: int) -> None:
    save_png(path, np.full((height, width, 3), 128, np.uint8))


def columns(path: Path, height: int, values: list[int], repeat: int = 4) -> None:
    """Write a label map with one column, `repeat` pixels wide, per value."""
    save_png(path, np.tile(np.repeat(np.array(values, np.uint8), repeat), (height, 1)))


@pytest.fixture
def street(tmp_path: Path) -> Path:
    for split, city, frame in (
        ("train", "ulm", 2),
        ("train", "aachen", 1),
        ("train", "aachen", 10),
        ("val", "bonn", 3),
    ):
        name = f"{city}_{frame:06d}_000019"
        photo(tmp_path / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", 16, 32)
        labels = tmp_path / "gtFine" / split / city
        columns(labels / f"{name}_gtFine_labelIds.png", 16, [0, 7, 26, 33, 34, 255, 8, 11])
        save_png(labels / f"{name}_gtFine_color.png", np.zeros((16, 32, 3), np.uint8))  # also in the download
        columns(labels / f"{name}_gtFine_instanceIds.png", 16, [0] * 8)
    return tmp_path


def test_cityscapes_pairs_across_cities_and_non_square_size(street: Path) -> None:
    dataset = Cityscapes(size=[8, 16], path=str(street))
    assert [pair.name for pair in dataset.pairs] == [
        "aachen_000001_000019",
        "aachen_000010_000019",
        "ulm_000002_000019",
    ]
    item = dataset[0]
    assert item["image"].shape == (3, 8, 16)
    assert item["labels"].shape == (8, 16)
    assert dataset.label_set is CITYSCAPES
    assert item["labels"][0, ::2].tolist() == [
        0,
        7,
        26,
        33,
        34,
        34,
        8,
        11,
    ]  # beyond 33: "license plate", SPADE's 34
    assert len(Cityscapes([8, 16], str(street), split="validation")) == 1


def test_cityscapes_train_ids(street: Path) -> None:
    dataset = Cityscapes([8, 16], str(street), split="val", train_ids=True)
    assert dataset.label_set is CITYSCAPES_TRAIN
    assert dataset[0]["labels"][0, ::2].tolist() == [255, 0, 13, 18, 255, 255, 1, 2]


def test_cityscapes_errors(street: Path) -> None:
    with pytest.raises(
        ValueError, match="split must be one of train, val, test, validation for Cityscapes, got 'trian'"
    ):
        Cityscapes([8, 16], str(street), split="trian")
    (street / "gtFine" / "val" / "bonn" / "bonn_000003_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(FolderError, match=r"has no file \*_gtFine_labelIds\.png; it has 2 other files"):
        Cityscapes([8, 16], str(street), split="val")
    with pytest.raises(FolderError, match=r"test does not exist"):
        Cityscapes([8, 16], str(street), split="test")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    for split, stem in (("training", "ADE_train"), ("validation", "ADE_val")):
        photo(tmp_path / "images" / split / f"{stem}_00000001.jpg", 20, 16)
        columns(tmp_path / "annotations" / split / f"{stem}_00000001.png", 20, [0, 1, 13, 150])
    return tmp_path


def test_ade20k_labels_are_those_of_spade(scenes: Path) -> None:
    dataset = ADE20K(size=(10, 4), path=str(scenes))
    item = dataset[0]
    assert item["image"].shape == (3, 10, 4)
    names = [ADE20K_REGIONS.regions[label] for label in item["labels"][0].tolist()]
    assert names == ["other", "wall", "person", "flag"]
    assert item["labels"][0].tolist() == [150, 0, 12, 149]
    assert ADE20K(4, str(scenes), split="validation")[0]["name"] == "ADE_val_00000001"


def test_ade20k_errors(scenes: Path) -> None:
    with pytest.raises(ValueError, match=r"split must be one of train, .*for ADE20K, got 'test'"):
        ADE20K(4, str(scenes), split="test")
    columns(scenes / "annotations" / "training" / "ADE_train_00000001.png", 20, [0, 1, 151, 2])
    with pytest.raises(ImageError, match=r"label 151 in .*; ADE20K has labels in \[0, 150\]"):
        ADE20K(4, str(scenes))


@pytest.fixture
def people(tmp_path: Path) -> Path:
    for number in range(40):
        for view in ("1_front", "2_side"):
            name = f"WOMEN-Dresses-id_{number:08d}-01_{view}"
            photo(tmp_path / "images" / f"{name}.jpg", 22, 15)
            if number != 39:  # most images of the download have no parsing map
                save_png(tmp_path / "segm" / f"{name}_segm.png", np.full((22, 15), 13, np.uint8))
    return tmp_path


def test_deepfashion_images_without_parsing_map_are_left_out(people: Path) -> None:
    dataset = DeepFashion(size=[22, 15], path=str(people), split="all")
    assert len(dataset) == 78
    assert dataset.label_set is DEEPFASHION
    assert dataset[0]["image"].shape == (3, 22, 15)
    assert dataset[0]["labels"].eq(DEEPFASHION.index("hair")).all()


def test_deepfashion_splits_by_item(people: Path) -> None:
    parts = {
        split: {pair.name for pair in DeepFashion(8, str(people), split=split).pairs}
        for split in ("train", "test")
    }
    assert parts["train"] | parts["test"] == {
        pair.name for pair in DeepFashion(8, str(people), split="all").pairs
    }
    items = {split: {name[:25] for name in names} for split, names in parts.items()}
    assert not items["train"] & items["test"]
    assert 0 < len(parts["test"]) < len(parts["train"])


def test_deepfashion_lists_define_the_split(people: Path) -> None:
    (people / "test.txt").write_text(
        "WOMEN-Dresses-id_00000005-01_2_side.jpg\nWOMEN-Dresses-id_00000003-01_1_front\n"
    )
    dataset = DeepFashion(8, str(people), ["image"], split="test")
    assert [pair.name[14:25] for pair in dataset.pairs] == ["id_00000005", "id_00000003"]
    (people / "test.txt").write_text("nobody.jpg\n")
    with pytest.raises(FolderError, match=r"test\.txt lists 1 file \(nobody\)"):
        DeepFashion(8, str(people), split="test")
    with pytest.raises(ValueError, match="split must be one of train, test, all for DeepFashion, got 'val'"):
        DeepFashion(8, str(people), split="val")


def test_deepfashion_missing_image(people: Path) -> None:
    (people / "images" / "WOMEN-Dresses-id_00000003-01_1_front.jpg").unlink()
    with pytest.raises(FolderError, match=r"1 label map \(WOMEN-Dresses-id_00000003.*without an image"):
        DeepFashion(8, str(people), split="all")


def test_targets_of_the_published_configs(street: Path, scenes: Path, people: Path) -> None:
    for target, size in (("Cityscape", [8, 16]), ("Ade20K", 8), ("DeepFashion", [22, 15])):
        params = {
            "size": size,
            "path": str(street),
            "keys": ["image", "label"],
        }  # the fixtures share one folder
        dataset = instantiate_from_config({"target": f"dataset.{target}", "params": params})
        assert isinstance(dataset[0]["labels"], torch.Tensor)


def test_flips_keep_the_labels_of_sets_without_left_and_right(scenes: Path) -> None:
    dataset = ADE20K(size=(10, 4), path=str(scenes), horizontal_flip=True)
    seen = set()
    for epoch in range(12):
        dataset.set_epoch(epoch)
        seen.add(tuple(dataset[0]["labels"][0].tolist()))
    assert seen == {(150, 0, 12, 149), (149, 12, 0, 150)}
