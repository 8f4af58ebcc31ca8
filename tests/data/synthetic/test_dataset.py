"""Synthetic faces: region statistics, determinism, independence of shape and style, locality of appearances."""

import subprocess
import sys
import zlib
from functools import cache

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ldm.data.labels import CELEBAMASK_HQ, one_hot
from ldm.data.synthetic.dataset import SyntheticFaces, draw_shape, draw_style, render
from ldm.data.synthetic.rasterize import rasterize
from ldm.data.synthetic.rng import bump, wave

R = len(CELEBAMASK_HQ.regions)


@cache
def occurrences(size: int, count: int) -> np.ndarray:
    """Return the pixels per region, (count, R)."""
    return np.stack(
        [np.bincount(rasterize(draw_shape(0, i), size).ravel(), minlength=R) for i in range(count)]
    )


def test_frequency_of_regions() -> None:
    pixels = occurrences(64, 200)
    assert pixels.shape == (200, R)  # no label out of range
    share = dict(zip(CELEBAMASK_HQ.regions, (pixels > 0).mean(0), strict=True))
    for region in ("background", "skin", "nose", "u_lip", "l_lip", "neck", "cloth", "l_brow", "r_brow"):
        assert share[region] > 0.9, (region, share[region])
    for region in ("hair", "l_eye", "r_eye"):
        assert 0.8 < share[region] < 1, (region, share[region])
    for region in ("l_ear", "r_ear", "mouth", "ear_r"):
        assert 0.2 < share[region] < 0.9, (region, share[region])
    for region in ("eye_g", "hat", "neck_l"):
        assert 0.08 < share[region] < 0.4, (region, share[region])


def test_left_regions_are_on_the_right_of_the_image() -> None:
    for i in range(30):
        labels = rasterize(draw_shape(0, i), 128)
        for part in ("eye", "brow", "ear"):
            left, right = (np.nonzero(labels == CELEBAMASK_HQ.index(f"{s}_{part}"))[1] for s in "lr")
            if len(left) and len(right):
                assert left.mean() > right.mean()


def test_vertical_order_of_regions() -> None:
    for i in range(30):
        labels = rasterize(draw_shape(1, i), 128)
        names = ("l_brow", "l_eye", "nose", "u_lip", "l_lip", "neck")
        rows = [np.nonzero(labels == k)[0] for k in CELEBAMASK_HQ.indices(names)]
        heights = [r.mean() for r in rows if len(r)]
        assert heights == sorted(heights)


# Recorded on x86-64 with numpy 2.4. A change invalidates the demo weights and their metrics.
RECORDED = {
    (0, 0, 64): 1163052833,
    (0, 1, 64): 3417631880,
    (7, 12345, 64): 1906311876,
    (3, 14, 128): 3849272828,
}


@pytest.mark.parametrize(("face", "expected"), RECORDED.items())
def test_recorded_faces(face: tuple[int, int, int], expected: int) -> None:
    seed, index, size = face
    image, labels = render(draw_shape(seed, index), draw_style(seed, index), size)
    assert zlib.crc32(image.tobytes() + labels.tobytes()) == expected


def test_faces_do_not_depend_on_hash_seed_and_global_generator() -> None:
    program = (
        "import zlib, numpy; numpy.random.seed(5)\n"
        "from ldm.data.synthetic.dataset import SyntheticFaces\n"
        "faces = SyntheticFaces(64, 4, seed=2, start=9)\n"
        "print([zlib.crc32(faces[i]['image'].numpy().tobytes()) for i in (3, 0)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": ":".join(p for p in sys.path if p)},
    )
    faces = SyntheticFaces(64, 4, seed=2, start=9)
    assert done.stdout.strip() == str([zlib.crc32(faces[i]["image"].numpy().tobytes()) for i in (3, 0)])


def test_faces_differ_between_seeds_and_indices() -> None:
    series = [SyntheticFaces(32, 20, seed=s) for s in (0, 1)]
    images = {item["image"].numpy().tobytes() for faces in series for item in (faces[i] for i in range(20))}
    assert len(images) == 40


def test_label_map_depends_on_the_shape_only() -> None:
    for a, b in ((0, 1), (5, 40), (17, 3)):
        shape = draw_shape(0, a)
        own, labels = render(shape, draw_style(0, a), 64)
        swapped, labels_swapped = render(shape, draw_style(0, b), 64)
        assert np.array_equal(labels, labels_swapped)
        assert np.array_equal(labels, rasterize(shape, 64))
        assert np.abs(own.astype(int) - swapped).mean() > 5


def test_shape_and_style_are_independent() -> None:
    """The width of the face and the skin tone are uncorrelated."""
    skin = CELEBAMASK_HQ.index("skin")
    pairs = [(draw_shape(0, i).head.width, draw_style(0, i).appearances[skin].tone[0]) for i in range(1000)]  # type: ignore[attr-defined]
    widths, tones = np.array(pairs).T
    assert abs(np.corrcoef(widths, tones)[0, 1]) < 0.1  # 3 standard errors


@pytest.mark.parametrize("region", CELEBAMASK_HQ.regions)
def test_appearance_affects_only_its_region(region: str) -> None:
    label, changed = CELEBAMASK_HQ.index(region), 0
    present = np.flatnonzero(occurrences(64, 200)[:, label] >= 4)[:4].tolist()
    assert len(present) == 4
    for i in present:
        shape, style, other = draw_shape(0, i), draw_style(0, i), draw_style(0, i + 1000)
        before, labels = render(shape, style, 64)
        after, _ = render(shape, style.swap(other, [region]), 64)
        full, _ = render(shape, other, 64)
        inside = labels == label
        assert np.array_equal(before[~inside], after[~inside])
        assert np.array_equal(after[inside], full[inside])  # independent of other regions
        changed += np.abs(before[inside].astype(int) - after[inside]).mean() > 2
    assert changed >= 3  # two styles may be similar


def test_swap_round_trip() -> None:
    own, other = draw_style(0, 0), draw_style(0, 1)
    regions = ["hair", "u_lip", "l_lip"]
    assert own.swap(other, regions).swap(own, regions) == own
    assert own.swap(other, CELEBAMASK_HQ.regions) == other
    assert own.swap(other, []) == own


def test_unknown_region() -> None:
    with pytest.raises(ValueError, match="hair"):
        draw_style(0, 0).swap(draw_style(0, 1), ["hairs"])


def test_renderings_at_different_sizes_agree() -> None:
    for i in range(12):
        shape, style = draw_shape(4, i), draw_style(4, i)
        image, labels = render(shape, style, 256)
        for factor in (2, 4):
            small, small_labels = render(shape, style, 256 // factor)
            middle = slice(factor // 2, None, factor)
            assert (labels[middle, middle] == small_labels).mean() > 0.93
            blocks = image.reshape(256 // factor, factor, 256 // factor, factor, 3).mean((1, 3))
            assert np.abs(blocks - small).mean() < 9


def test_regions_differ_between_faces() -> None:
    """Mean colors have a standard deviation of more than 8 of 255 over faces, and regions have texture."""
    means: dict[str, list[np.ndarray]] = {
        name: [] for name in ("hair", "skin", "l_lip", "l_eye", "background", "cloth")
    }
    inner: dict[str, list[float]] = {name: [] for name in means}
    for i in range(60):
        image, labels = render(draw_shape(6, i), draw_style(6, i), 64)
        for name in means:
            pixels = image[labels == CELEBAMASK_HQ.index(name)].astype(float)
            if len(pixels) >= 4:
                means[name].append(pixels.mean(0))
                inner[name].append(pixels.std(0).mean())
    for name in means:
        assert np.std(means[name], axis=0).mean() > 8, name
        assert np.median(inner[name]) > 4, name


def test_items_and_batches() -> None:
    faces = SyntheticFaces(32, 5, seed=1, start=100)
    batch = next(iter(DataLoader(faces, batch_size=5)))
    assert batch["image"].shape == (5, 3, 32, 32) and batch["image"].dtype == torch.float32
    assert batch["image"].min() >= -1 and batch["image"].max() <= 1
    assert batch["labels"].shape == (5, 32, 32) and batch["labels"].dtype == torch.uint8
    assert batch["name"] == ["000100", "000101", "000102", "000103", "000104"]
    assert torch.equal(one_hot(batch["labels"], R).sum(1), torch.ones(5, 32, 32))
    assert faces.label_set is CELEBAMASK_HQ
    image, _ = render(draw_shape(1, 103), draw_style(1, 103), 32)
    assert np.array_equal(np.rint((faces[3]["image"].numpy() + 1) * 127.5), image.transpose(2, 0, 1))


def test_start_and_negative_indices() -> None:
    late, early = SyntheticFaces(16, 3, start=7), SyntheticFaces(16, 10)
    assert torch.equal(late[0]["image"], early[7]["image"])
    assert torch.equal(late[-1]["image"], early[9]["image"])
    with pytest.raises(IndexError):
        late[3]
    assert len(list(iter(late))) == len(late) == 3  # iteration ends


@pytest.mark.parametrize("flip", [False, True])
def test_other_shape_has_the_same_style(flip: bool) -> None:
    faces = SyntheticFaces(32, 12, seed=3, horizontal_flip=flip, other_shape=True)
    plain = SyntheticFaces(32, 12, seed=3, horizontal_flip=flip)
    assert plain[0].keys() == {"image", "labels", "name"}
    within, between = [], []
    for i in range(12):
        face, next_face = faces[i], faces[(i + 1) % 12]
        assert torch.equal(face["image"], plain[i]["image"])
        assert not torch.equal(face["labels"], face["other_labels"])
        hair = CELEBAMASK_HQ.index("hair")
        colors = [
            face[f"{which}image"][:, face[f"{which}labels"] == hair].mean(1) for which in ("", "other_")
        ]
        colors.append(next_face["image"][:, next_face["labels"] == hair].mean(1))
        within.append((colors[0] - colors[1]).abs().mean())
        between.append((colors[0] - colors[2]).abs().mean())
    assert torch.stack(within).nanmean() < 0.4 * torch.stack(between).nanmean()


def test_flips_swap_left_and_right() -> None:
    plain, mirrored = SyntheticFaces(32, 60), SyntheticFaces(32, 60, horizontal_flip=True)
    flipped = 0
    for i in range(60):
        a, b = plain[i], mirrored[i]
        if torch.equal(a["image"], b["image"]):
            assert torch.equal(a["labels"], b["labels"])
            continue
        flipped += 1
        assert torch.equal(a["image"].flip(-1), b["image"])
        table = torch.tensor(CELEBAMASK_HQ.mirror, dtype=torch.uint8)
        assert torch.equal(table[a["labels"].flip(-1).long()], b["labels"])
    assert 18 <= flipped <= 42  # 30 +- 3 standard deviations


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 12, "length": 1}, "at least 16"),
        ({"size": 66, "length": 1}, "multiple of 4"),
        ({"size": 64, "length": 0}, "at least 1"),
        ({"size": 64, "length": 1, "seed": -1}, "at least 0"),
        ({"size": 64, "length": 1, "start": -1}, "at least 0"),
    ],
)
def test_invalid_arguments(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticFaces(**arguments)


def test_small_sizes() -> None:
    for size in (16, 20, 36):
        for i in range(20):
            image, labels = render(draw_shape(8, i), draw_style(8, i), size)
            assert image.shape == (size, size, 3) and labels.shape == (size, size)


def test_curves() -> None:
    quarter = np.array([0.0, 0.25, 0.5, 0.75, 1.0, -0.25])
    assert np.allclose(np.abs(wave(quarter)), [0, 1, 0, 1, 0, 1])
    assert np.allclose(wave(quarter + 3), wave(quarter))
    assert bump(np.array([0.0, 1.0, 4.0])).tolist() == [1, 0, 0]
