"""Reading and writing of images and label maps, and errors of unusable files."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ldm.atomic_files import write_file
from ldm.data import images
from ldm.data.animation import save_animation
from ldm.data.images import ImageError, as_size, load_image, save_png, to_tensor, to_uint8
from ldm.data.label_maps import label_table, load_labels, save_labels
from ldm.data.labels import CELEBAMASK_HQ, UNLABELED


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ramp(height: int, width: int) -> np.ndarray:
    """Return a smooth image: red increases to the right, green downwards."""
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([255 * x / (width - 1), 255 * y / (height - 1), np.full_like(x, 90)], -1).astype(np.uint8)


def same_color(tensor: torch.Tensor, rgb: tuple[int, int, int], tolerance: int = 0) -> bool:
    return bool((np.abs(to_uint8(tensor).astype(int) - np.array(rgb)) <= tolerance).all())


def test_tensor_round_trip() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, 2)
    tensor = to_tensor(Image.fromarray(pixels))
    assert tensor.shape == (3, 16, 16)
    assert tensor.dtype == torch.float32
    assert tensor.is_contiguous()
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert np.array_equal(to_uint8(tensor), pixels)


def test_to_uint8() -> None:
    value = torch.tensor([-5.0, -1.0, 0.6 / 127.5 - 1, 0.4 / 127.5 - 1, 1.0, 5.0])
    pixels = to_uint8(value.expand(2, 3, 1, 6))
    assert pixels.shape == (2, 1, 6, 3)
    assert pixels[1, 0, :, 2].tolist() == [0, 0, 1, 0, 255, 255]
    with pytest.raises(ValueError, match="non-finite"):
        to_uint8(torch.full((3, 2, 2), float("nan")))
    with pytest.raises(ValueError, match=r"must have shape \(\.\.\., 3, H, W\)"):
        to_uint8(torch.zeros(2, 2, 3))


def test_png_round_trip_with_metadata(tmp_path: Path) -> None:
    pixels = noise(5, 7)
    path = tmp_path / "new" / "folder" / "a.png"
    save_png(path, pixels, {"seed": "3", "command": "größe → 日本"})
    with Image.open(path) as file:
        assert np.array_equal(np.asarray(file), pixels)
        assert file.text == {"seed": "3", "command": "größe → 日本"}  # type: ignore[attr-defined]
    save_png(path, load_image(path))
    assert np.array_equal(to_uint8(load_image(path)), pixels)


def test_failed_writes_keep_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save_png(path, noise(4, 4))
    before = path.read_bytes()

    def fail(file: object) -> None:
        file.write(b"partial")  # type: ignore[attr-defined]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_file(path, fail)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_label_map_round_trip_as_palette_png(tmp_path: Path) -> None:
    labels = torch.tensor([[0, 13, 18], [4, 5, UNLABELED]], dtype=torch.uint8)
    path = tmp_path / "0.png"
    save_labels(path, labels, CELEBAMASK_HQ)
    loaded = load_labels(path, CELEBAMASK_HQ)
    assert loaded.dtype == torch.uint8
    assert torch.equal(loaded, labels)
    with Image.open(path) as file:
        assert file.mode == "P"
        assert np.array_equal(np.asarray(file.convert("RGB")), CELEBAMASK_HQ.colorize(labels))


@pytest.mark.parametrize(("size", "expected"), [(8, (8, 8)), ([4, 12], (4, 12)), ((12, 4), (12, 4))])
def test_resizing(tmp_path: Path, size: int | list[int], expected: tuple[int, int]) -> None:
    save_png(tmp_path / "a.png", ramp(16, 24))
    save_labels(tmp_path / "m.png", np.tile(np.array([[1], [13]], np.uint8), (8, 24)), CELEBAMASK_HQ)
    assert load_image(tmp_path / "a.png", size).shape == (3, *expected)
    labels = load_labels(tmp_path / "m.png", CELEBAMASK_HQ, size)
    assert labels.shape == expected
    assert set(labels.unique().tolist()) <= {1, 13}  # nearest neighbor


def test_resizing_label_maps(tmp_path: Path) -> None:
    small = np.array([[1, 2], [3, 13]], np.uint8)
    save_labels(tmp_path / "m.png", small.repeat(8, 0).repeat(8, 1), CELEBAMASK_HQ)
    assert load_labels(tmp_path / "m.png", CELEBAMASK_HQ, 2).tolist() == small.tolist()
    assert torch.equal(
        load_labels(tmp_path / "m.png", CELEBAMASK_HQ, 32),
        torch.from_numpy(small.repeat(16, 0).repeat(16, 1)),
    )


def test_reduced_jpeg_decoding_is_accurate(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    detailed = Image.fromarray(noise(64, 64)).resize((512, 512), Image.Resampling.BICUBIC)
    detailed.save(path, quality=95)
    with Image.open(path) as file:
        whole = file.convert("RGB").resize((64, 64), Image.Resampling.BICUBIC)
    error = (load_image(path, 64) - to_tensor(whole)).square().mean()
    assert 10 * torch.log10(4 / error) > 35  # dB


@pytest.mark.parametrize("size", ["64", [64], [64, 64, 3], 0, [64, -1], 1.5])
def test_invalid_sizes(size: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        as_size(size)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "I;16", "LA", "RGBA"])
def test_conversion_of_modes_to_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    if mode == "I;16":
        Image.fromarray(np.full((6, 6), 65535, np.uint16)).save(path)
    else:
        Image.new("RGB", (6, 6), "white").convert(mode).save(path)
    with Image.open(path) as file:
        assert file.mode == mode
    assert same_color(load_image(path), (255, 255, 255))


def test_16_bit_images_are_scaled(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert to_uint8(load_image(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 100, 255]


def test_colors_of_cmyk_jpegs(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), (200, 40, 60)).convert("CMYK").save(tmp_path / "a.jpg", quality=95)
    assert same_color(load_image(tmp_path / "a.jpg"), (200, 40, 60), tolerance=6)


def test_transparent_pixels_become_white(tmp_path: Path) -> None:
    pixels = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    pixels.putpixel((1, 0), (10, 20, 30, 0))
    pixels.save(tmp_path / "a.png")
    assert to_uint8(load_image(tmp_path / "a.png"))[0].tolist() == [[10, 20, 30], [255, 255, 255]]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.save(tmp_path / "p.png", transparency=1)
    assert to_uint8(load_image(tmp_path / "p.png"))[0].tolist() == [[10, 20, 30], [255, 255, 255]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    upright = ramp(40, 60)
    undo = {2: "flip_lr", 3: "180", 4: "flip_ud", 5: "T", 6: "rot90", 7: "anti", 8: "rot-90"}.get(orientation)
    stored = {
        None: upright,
        "flip_lr": upright[:, ::-1],
        "180": upright[::-1, ::-1],
        "flip_ud": upright[::-1],
        "T": upright.transpose(1, 0, 2),
        "rot90": np.rot90(upright, 1),
        "anti": np.rot90(upright, 2).transpose(1, 0, 2),
        "rot-90": np.rot90(upright, -1),
    }[undo]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(
        tmp_path / "a.jpg", quality=100, subsampling=0, exif=exif
    )
    assert np.abs(to_uint8(load_image(tmp_path / "a.jpg")).astype(int) - upright).max() <= 4
    small = load_image(tmp_path / "a.jpg", [8, 12])  # decoded at a reduced size
    assert small[0, 4, 10] > small[0, 4, 1] + 1
    assert small[1, 7, 6] > small[1, 0, 6] + 1
    with images.open_image(tmp_path / "a.jpg") as file:
        assert images.upright_size(file) == (40, 60)


def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    Image.fromarray(ramp(40, 60)).save(
        tmp_path / "a.jpg", exif=b"Exif\x00\x00nonsense that is no TIFF header"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert load_image(tmp_path / "a.jpg", 8).shape == (3, 8, 8)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_truncated_files(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"7.{suffix}"
    Image.fromarray(noise(64, 64)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ImageError, match=rf"7\.{suffix} is truncated or damaged .*download it again"):
        load_image(path)
    with pytest.raises(ImageError, match=rf"7\.{suffix} is truncated or damaged"):
        load_image(path, 8)
    path.write_bytes(b"not an image")
    with pytest.raises(ImageError, match=rf"7\.{suffix} is no PNG or JPEG image"):
        load_image(path)
    path.unlink()
    with pytest.raises(ImageError, match=rf"7\.{suffix} does not exist"):
        load_image(path)
    with pytest.raises(ImageError, match="cannot be read: it is a folder"):
        load_image(tmp_path)


def test_large_images_are_refused_before_decoding(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (9000, 9000)).save(path)
    with pytest.raises(ImageError, match=r"large\.png has 9000 x 9000 pixels; the maximum is 64 million"):
        load_image(path, 64)
    header = bytearray(path.read_bytes())  # 60,000 x 60,000, a decompression bomb for Pillow
    header[16:24] = (60_000).to_bytes(4, "big") * 2
    header[29:33] = images.zlib.crc32(header[12:29]).to_bytes(4, "big")
    path.write_bytes(header)
    with pytest.raises(ImageError, match=r"large\.png has far more pixels than a photo"):
        load_image(path, 64)


def test_labels_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / "labels" / "28000.png"
    wrong = np.zeros((4, 4), np.uint8)
    wrong[3, 3] = 23
    save_png(path, wrong)
    with pytest.raises(
        ImageError,
        match=r"label 23 in .*labels/28000\.png; CelebAMask-HQ has labels in \[0, 18\]\. Was the mask saved in color\?",
    ):
        load_labels(path, CELEBAMASK_HQ, 2)
    save_png(path, np.array([[0, 255]], np.uint8))
    with pytest.raises(ImageError, match=r"only the values 0 and 255; .* binary mask of one part\?"):
        load_labels(path, CELEBAMASK_HQ)
    Image.fromarray(np.array([[0, 300]], np.uint16)).save(path)
    with pytest.raises(ImageError, match=r"label 300 in .*16 bits"):
        load_labels(path, CELEBAMASK_HQ)


@pytest.mark.parametrize(
    ("mode", "found"), [("RGB", r": 1 of its 1 colors"), ("RGBA", "has transparent"), ("1", "has mode 1")]
)
def test_label_maps_in_other_modes_are_refused(tmp_path: Path, mode: str, found: str) -> None:
    Image.new(mode, (4, 4)).save(tmp_path / "3.png")
    with pytest.raises(ImageError, match=rf"3\.png ?{found}"):
        load_labels(tmp_path / "3.png", CELEBAMASK_HQ)


def test_jpeg_label_maps_are_refused(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "3.jpg")
    with pytest.raises(ImageError, match=r"3\.jpg is a JPEG, whose compression changes the labels"):
        load_labels(tmp_path / "3.jpg", CELEBAMASK_HQ)


def test_gray_and_16_bit_label_maps(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 18, 255]], np.uint8)
    save_png(tmp_path / "l.png", labels)
    Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "i.png")
    for name in ("l.png", "i.png"):
        assert load_labels(tmp_path / name, CELEBAMASK_HQ).tolist() == labels.tolist()


def test_label_table(tmp_path: Path) -> None:
    table = label_table(CELEBAMASK_HQ)
    table[[0, 1]] = [1, 0]
    table[18] = -1
    save_png(tmp_path / "a.png", np.array([[0, 1, 2, 255]], np.uint8))
    assert load_labels(tmp_path / "a.png", CELEBAMASK_HQ, table=table).tolist() == [[1, 0, 2, 255]]
    save_png(tmp_path / "a.png", np.array([[18, 1]], np.uint8))
    with pytest.raises(ImageError, match=r"label 18 in .*has labels in \[0, 17\]"):
        load_labels(tmp_path / "a.png", CELEBAMASK_HQ, table=table)


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_animation_round_trip(kind: str, tmp_path: Path) -> None:
    levels = [-1.0, -0.2, 0.2, 1.0]
    save_animation(
        tmp_path / f"animation.{kind}", [torch.full((3, 16, 16), level) for level in levels], seconds=0.2
    )
    with Image.open(tmp_path / f"animation.{kind}") as animation:
        assert animation.n_frames == 4 and animation.info["loop"] == 0
        for frame, level in enumerate(levels):
            animation.seek(frame)
            assert np.asarray(animation.convert("RGB")).mean() == pytest.approx((level + 1) * 127.5, abs=4)
            assert animation.info["duration"] == 200
    with pytest.raises(ValueError, match=r"at least one frame .*got 0 frames"):
        save_animation(tmp_path / "none.gif", [])
    with pytest.raises(ValueError, match=r"the suffix .gif or .webp"):
        save_animation(tmp_path / "animation.avi", [torch.zeros(3, 16, 16)])


@pytest.mark.parametrize("size", [None, 8])
def test_damaged_png_pixels_are_refused(tmp_path: Path, size: int | None) -> None:
    path = tmp_path / "7.png"
    Image.fromarray(noise(16, 16)).save(path)
    header = path.read_bytes()[:41]
    path.write_bytes(header + bytes(path.stat().st_size - 41))
    with pytest.raises(ImageError, match=r"7\.png is truncated or damaged"):
        load_image(path, size)
