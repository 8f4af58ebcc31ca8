"""Files that could be misread: read correctly or refused, never silently wrong."""

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, PngImagePlugin

from ldm.data.datasets.celebamask import merge_parts
from ldm.data.images import ImageError, encode_png, load_image, save_png
from ldm.data.label_maps import load_labels, save_labels
from ldm.data.labels import CELEBAMASK_HQ

LABELS = np.kron(np.arange(19, dtype=np.uint8).reshape(1, 19), np.ones((8, 3), np.uint8))  # (8, 57)


def read(path: Path) -> np.ndarray:
    return load_labels(path, CELEBAMASK_HQ).numpy()


@pytest.mark.parametrize("kind", ["labels", "photo"])
def test_flipped_bits_of_pngs_are_detected(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    rng = np.random.default_rng(0)
    if kind == "labels":
        save_labels(file, rng.integers(0, 19, (12, 12), dtype=np.uint8), CELEBAMASK_HQ)
        load = read
    else:
        save_png(file, rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        load = lambda path: load_image(path).numpy()  # noqa: E731
    whole, before = file.read_bytes(), load(file)
    for bit in rng.choice(8 * (len(whole) - 16), 400, replace=False) + 64:  # after the signature, before IEND
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            found = load(file)
        except ImageError as error:
            assert "a.png" in str(error)
        else:
            assert np.array_equal(found, before), bit


def test_wrong_adler_32_is_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed = bytearray(zlib.compress(b"\0\1\2" * 2))
    packed[-1] ^= 1
    header = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 0)
    content = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", bytes(packed)) + chunk(b"IEND", b"")
    )
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.png.*incorrect data check"):
        read(tmp_path / "a.png")


# --- label maps with other values than labels ---


def painted() -> Image.Image:
    return Image.fromarray(CELEBAMASK_HQ.colorize(LABELS))


def sorted_palette() -> Image.Image:
    image = painted().convert("P", palette=Image.Palette.ADAPTIVE, colors=19)
    return image.remap_palette(list(range(18, -1, -1)))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("quantized.png", lambda: painted().quantize(19, dither=Image.Dither.NONE)),
        ("sorted.png", sorted_palette),
        ("mask.gif", lambda: painted().quantize(19, dither=Image.Dither.NONE)),
        ("rgb.png", painted),
        ("rgba.png", lambda: painted().convert("RGBA")),
        ("gray.png", lambda: Image.fromarray(LABELS)),
        ("gray_palette.png", lambda: Image.fromarray(LABELS).convert("P")),
    ],
)
def test_labels_in_the_colors_of_the_label_set(name: str, make, tmp_path: Path) -> None:
    make().save(tmp_path / name)
    assert np.array_equal(read(tmp_path / name), LABELS)


def test_other_palettes_keep_the_values(tmp_path: Path) -> None:
    image = Image.fromarray(LABELS, "P")
    image.putpalette([value for i in range(256) for value in (i * 7 % 256, i * 31 % 256, 255 - i)])
    image.save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), LABELS)


@pytest.mark.parametrize("bits", [2, 4])
def test_gray_label_maps_with_2_and_4_bits(bits: int, tmp_path: Path) -> None:
    labels = (LABELS % 2**bits).astype(np.uint8)
    rows = [
        np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:].reshape(-1)).tobytes() for row in labels
    ]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", labels.shape[1], labels.shape[0], bits, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    assert np.array_equal(read(tmp_path / "a.png"), labels)


def test_unknown_colors_are_refused(tmp_path: Path) -> None:
    smooth = painted().resize((40, 8), Image.Resampling.BICUBIC)
    for name, image in (("rgb.png", smooth), ("p.png", smooth.quantize(64, dither=Image.Dither.NONE))):
        image.save(tmp_path / name)
        with pytest.raises(
            ImageError, match=rf"{name}: \d+ of its \d+ colors are not of CelebAMask-HQ's palette: \("
        ):
            read(tmp_path / name)
    gray = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    gray.putpalette([0, 0, 0, 13, 13, 13])
    gray.save(tmp_path / "gray.png")
    with pytest.raises(ImageError, match=r"gray\.png: its palette is gray"):
        read(tmp_path / "gray.png")


# --- color ---


def test_profiles_that_are_srgb_or_unusable(tmp_path: Path) -> None:
    lab = ImageCms.createProfile("LAB")
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    plain = Image.fromarray(pixels)
    plain.save(tmp_path / "plain.png")
    plain.save(tmp_path / "srgb.png", icc_profile=srgb.tobytes())
    assert np.array_equal(load_image(tmp_path / "srgb.png"), load_image(tmp_path / "plain.png"))
    for name, profile in (("other.png", ImageCms.ImageCmsProfile(lab).tobytes()), ("bad.png", b"no profile")):
        plain.save(tmp_path / name, icc_profile=profile)
        with pytest.warns(UserWarning, match=name):
            assert np.array_equal(load_image(tmp_path / name), load_image(tmp_path / "plain.png"))


def test_display_p3_is_converted_to_srgb(tmp_path: Path) -> None:
    p3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))
    srgb = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.7141))
    pixels = np.array([[[190, 90, 90], [128, 128, 128], [90, 160, 95]]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p3.png", icc_profile=rgb_profile(p3))
    found = ((load_image(tmp_path / "p3.png").numpy() + 1) * 127.5).transpose(1, 2, 0)[0]
    light = (pixels[0] / 255) ** (563 / 256) @ np.array(p3) @ np.linalg.inv(np.array(srgb))
    curve = np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    np.testing.assert_allclose(found, 255 * curve, atol=1.5)
    assert np.abs(found - pixels[0]).max() > 8


def rgb_profile(columns: tuple[tuple[float, float, float], ...]) -> bytes:
    """Return an ICC profile of these primaries (D50) with gamma 2.2."""

    def number(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    tags = {
        name: b"XYZ \0\0\0\0" + b"".join(map(number, column))
        for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)
    }
    tags[b"wtpt"] = b"XYZ \0\0\0\0" + b"".join(map(number, (0.9642, 1.0, 0.8249)))
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\0\0\0\0" + struct.pack(">IHH", 1, 563, 0))
    tags[b"desc"] = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79)
    table, data, place = struct.pack(">I", len(tags)), b"", 128 + 4 + 12 * len(tags)
    for name, content in tags.items():
        table += name + struct.pack(">II", place + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    size = place + len(data)
    header = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ")
    header += struct.pack(">6H4s", 2024, 1, 1, 0, 0, 0, b"acsp") + bytes(28)
    header += b"".join(map(number, (0.9642, 1.0, 0.8249)))
    return header + bytes(128 - len(header)) + table + data


def test_written_images_are_tagged_srgb() -> None:
    assert Image.open(io.BytesIO(encode_png(np.zeros((2, 2, 3), np.uint8)))).info["srgb"] == 0


# --- other kinds of files ---


def test_errors_name_the_format_of_other_files(tmp_path: Path) -> None:
    for name, head, expected in (
        ("a.heic", b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + bytes(40), "HEIC photo"),
        ("a.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "PostScript"),
        ("a.png", b"nothing", "is no PNG or JPEG"),
    ):
        (tmp_path / name).write_bytes(head)
        with pytest.raises(ImageError, match=rf"{name} .*{expected}"):
            load_image(tmp_path / name)


def test_large_text_chunks(tmp_path: Path) -> None:
    texts = PngImagePlugin.PngInfo()
    texts.add_text("history", "x" * 2_000_000, zip=True)
    Image.new("RGB", (4, 4), "red").save(tmp_path / "a.png", pnginfo=texts)
    assert load_image(tmp_path / "a.png")[0].mean() == 1


def test_pipes_are_refused_without_reading(tmp_path: Path) -> None:
    code = (
        "import os, sys; from ldm.data.images import ImageError, load_image\n"
        "os.mkfifo(sys.argv[1])\n"
        "try: load_image(sys.argv[1])\n"
        "except ImageError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "is a pipe or device" in done.stdout, done.stderr


# --- the download of CelebAMask-HQ ---


def test_modes_of_part_masks(tmp_path: Path) -> None:
    inside = np.zeros((6, 6), np.uint8)
    inside[1:3] = 255
    alpha = Image.merge("LA", (Image.new("L", (6, 6), 255), Image.fromarray(inside)))
    nearly = Image.fromarray(np.where(inside, 253, 3).astype(np.uint8))
    for image in (Image.fromarray(inside), alpha, nearly, Image.fromarray(inside).convert("RGB")):
        image.save(tmp_path / "00000_skin.png")
        assert np.array_equal(merge_parts(tmp_path, 0), inside // 255)
    for wrong in (inside // 255, np.where(inside, 255, 128).astype(np.uint8)):
        Image.fromarray(wrong).save(tmp_path / "00000_skin.png")
        with pytest.raises(ImageError, match="expected black"):
            merge_parts(tmp_path, 0)
