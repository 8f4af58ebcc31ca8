"""The task `dataset`: a training set from photos."""

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from ldm.atomic_files import write_file
from ldm.checkpoints.locate import FACE_PARSER
from ldm.cli.photo_files import named_photos
from ldm.data.image_grid import draw_contact_sheet
from ldm.data.images import load_image, to_uint8
from ldm.data.label_maps import load_labels
from ldm.output_files import check_outputs
from ldm.parsing import FaceParser
from ldm.pipeline.face_dataset import CONFIG, DROPPED, FaceDataset

PER_SHEET = 60  # faces on a contact sheet
BATCH_SIZE = 8  # of configs/latent-diffusion/faces-256.yaml


def run_dataset(options: argparse.Namespace) -> int:
    """Make or continue the dataset; return 0, or 130 if interrupted.

    Raises:
        ValueError: a mistake in the command, or no photo has a face that can be used.
    """
    photos = named_photos(options.photo)
    out: Path = options.out
    check_outputs([out / folder / "face.png" for folder in ("images", "labels")], photos)
    parser = FaceParser.from_pretrained(options.parser or FACE_PARSER, device=options.device)
    dataset = FaceDataset(out, parser, options.size, options.min_size)
    try:
        records = [dataset.add(photo) for photo in tqdm(photos, unit="photo", desc="aligning")]
    except KeyboardInterrupt:
        print(f"interrupted after {len(dataset.records)} photos; the same command continues", file=sys.stderr)
        return 130
    dataset.write_lists(records)
    for record in records:
        for reason in record.dropped:
            print(f"dropped: {record.photo}: {reason}", file=sys.stderr)
    train, validation = dataset.split()
    if not train:
        raise ValueError(f"none of the {len(photos)} photos has a face that can be used; see {out / DROPPED}")
    draw_sheets(
        dataset, {name: name for name in train} | {name: f"{name} (validation)" for name in validation}
    )
    print(
        f"{len(train)} faces to train and {len(validation)} to validate are in {out}, from {len(photos)} photos"
    )
    if train == validation:
        print(
            "only one photo has faces that can be used: they are for training and for validation",
            file=sys.stderr,
        )
    print(
        f"look at {out / 'contact_sheet_001.jpg'}; to remove a face, delete its image and label map and call this again"
    )
    few = f" data.params.batch_size={len(train)}" if len(train) < BATCH_SIZE else ""
    print(f"fine-tune with: sca-dm train -b faces-256.yaml faces-256-finetune.yaml {out / CONFIG} -t{few}")
    return 0


def draw_sheets(dataset: FaceDataset, titles: Mapping[str, str]) -> None:
    """Write contact_sheet_001.jpg and so on: each face with its label map, under its title."""
    for old in dataset.folder.glob("contact_sheet_*.jpg"):
        old.unlink()
    label_set, names = dataset.parser.label_set, list(titles)
    for start in range(0, len(names), PER_SHEET):
        cells = {}
        for name in names[start : start + PER_SHEET]:
            image, labels = (dataset.folder / kind / f"{name}.png" for kind in ("images", "labels"))
            pixels, colors = to_uint8(load_image(image)), label_set.colorize(load_labels(labels, label_set))
            cells[titles[name]] = Image.fromarray(pixels), Image.fromarray(colors)
        sheet = draw_contact_sheet(cells)
        path = dataset.folder / f"contact_sheet_{start // PER_SHEET + 1:03d}.jpg"
        write_file(path, partial(sheet.save, format="JPEG", quality=90))
