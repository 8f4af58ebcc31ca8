"""FaceDataset: a folder of aligned faces with label maps, made from photos."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from dataclasses import asdict, dataclass
from pathlib import Path

from omegaconf import OmegaConf

from ldm.atomic_files import write_text
from ldm.checkpoints.config_files import parse_json
from ldm.checkpoints.fingerprint import fingerprint
from ldm.data.images import save_png
from ldm.data.label_maps import save_labels
from ldm.parsing import FaceParser
from ldm.pipeline.aligned_faces import aligned_faces

VALIDATION_PERIOD = 10  # every tenth photo is for validation
SETTINGS, JOURNAL, DROPPED, CONFIG = "dataset.json", "photos.jsonl", "dropped.txt", "data.yaml"


class DatasetError(ValueError):
    """The output folder has files of another dataset or other settings."""


@dataclass(frozen=True)
class PhotoRecord:
    """Result of one photo; one line of the journal.

    Attributes:
        photo: path of the photo.
        digest: SHA-256 of the file.
        names: names of its faces in the dataset; empty if none was usable.
        dropped: reasons why faces, or the whole photo, were dropped.
    """

    photo: str
    digest: str
    names: list[str]
    dropped: list[str]


class FaceDataset:
    """A folder of aligned faces that grows photo by photo.

    It has images/NAME.png, labels/NAME.png, the names in train.txt and validation.txt, a config of both sets
    for main.py in data.yaml, and the dropped photos and faces with reasons in dropped.txt. Photos that an
    earlier run has finished are not opened again.

    Attributes:
        folder: the output folder.
        records: one per finished photo.
    """

    def __init__(self, folder: Path, parser: FaceParser, size: int, smallest: int) -> None:
        """Open or create the folder.

        Args:
            folder: the output folder.
            parser: finds and labels the faces.
            size: side of the aligned images in pixels.
            smallest: minimum side of a face crop in the photo, in pixels.

        Raises:
            DatasetError: the folder has files made with other settings, or a damaged journal.
        """
        self.folder, self.parser, self.size, self.smallest = folder, parser, size, smallest
        self._check_settings({"size": size, "smallest": smallest, "parser": fingerprint(parser.network)})
        self.records = self._read_journal()
        self._by_digest = {record.digest: record for record in self.records}
        self._names = {name for record in self.records for name in record.names}

    def add(self, photo: Path) -> PhotoRecord:
        """Add the faces of a photo, unless they are in the dataset already; return its record."""
        try:
            digest = hashlib.sha256(photo.read_bytes()).hexdigest()
        except OSError as error:
            return PhotoRecord(str(photo), "", [], [f"cannot be read: {error.strerror}"])
        if known := self._by_digest.get(digest):
            duplicate = Path(known.photo).resolve() != photo.resolve() and Path(known.photo).exists()
            return (
                PhotoRecord(str(photo), digest, [], [f"same file as {known.photo}"]) if duplicate else known
            )
        record = PhotoRecord(str(photo), digest, [], [])
        for face in aligned_faces(photo, self.parser, self.size, self.smallest):
            if isinstance(face, str):
                record.dropped.append(face)
                continue
            name = self._new_name(photo.stem, digest[:8])
            save_png(self.folder / "images" / f"{name}.png", face.image)
            save_labels(self.folder / "labels" / f"{name}.png", face.labels, self.parser.label_set)
            record.names.append(name)
        self.records.append(record)
        self._by_digest[digest] = record
        with (self.folder / JOURNAL).open("a") as journal:
            journal.write(json.dumps(asdict(record)) + "\n")
        return record

    def split(self) -> tuple[list[str], list[str]]:
        """Return the names of the training and of the validation faces.

        Every tenth photo is for validation; with fewer than ten photos, the last one. A single photo is in
        both lists, because training needs both. Faces whose files were deleted by hand are in neither list.
        """
        photos = [[name for name in record.names if self._is_complete(name)] for record in self.records]
        photos = [names for names in photos if names]
        if len(photos) == 1:
            return photos[0], photos[0]
        start = max(min(VALIDATION_PERIOD, len(photos)) - 1, 0)
        validation = [name for names in photos[start::VALIDATION_PERIOD] for name in names]
        held_back = set(validation)
        return [name for names in photos for name in names if name not in held_back], validation

    def write_lists(self, records: list[PhotoRecord]) -> None:
        """Write train.txt, validation.txt, data.yaml, and the reasons in the records to dropped.txt."""
        sets: dict[str, dict[str, dict[str, str]]] = {}
        for kind, names in zip(("train", "validation"), self.split(), strict=True):
            ids = self.folder / f"{kind}.txt"
            write_text(ids, "".join(f"{name}\n" for name in names))
            sets[kind] = {"params": {"path": str(self.folder), "ids": str(ids)}}
        write_text(self.folder / CONFIG, OmegaConf.to_yaml({"data": {"params": sets}}))
        reasons = [f"{record.photo}: {reason}\n" for record in records for reason in record.dropped]
        write_text(self.folder / DROPPED, "".join(reasons))

    def _new_name(self, stem: str, digest: str) -> str:
        name, number = readable_name(stem), 0
        while name in self._names:
            number += 1
            name = f"{readable_name(stem)}_{digest}_{number}"
        self._names.add(name)
        return name

    def _is_complete(self, name: str) -> bool:
        return all((self.folder / kind / f"{name}.png").is_file() for kind in ("images", "labels"))

    def _check_settings(self, settings: dict[str, int | str]) -> None:
        path = self.folder / SETTINGS
        if path.is_file():
            recorded = parse_json(path.read_text())
            if recorded != settings:
                raise DatasetError(
                    f"{self.folder} was made with the settings {recorded}, got {settings}; choose another folder"
                )
            return
        if (self.folder / "images").is_dir() or (self.folder / "labels").is_dir():
            raise DatasetError(f"{self.folder} has another dataset; choose another folder")
        write_text(path, json.dumps(settings) + "\n")

    def _read_journal(self) -> list[PhotoRecord]:
        """Return the finished photos; an incomplete last line from an interrupted write is removed."""
        path = self.folder / JOURNAL
        lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
        if lines and not lines[-1].endswith("\n"):
            write_text(path, "".join(lines[:-1]))
            lines.pop()
        try:
            return [PhotoRecord(**parse_json(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{path} is damaged ({error}); choose another folder") from error


def readable_name(stem: str) -> str:
    """Return a name that a list of names can hold and that is not hidden.

    Lists separate names by lines or commas, and ignore comments after `#`, outer spaces and image suffixes
    (`ldm.data.datasets.folders.read_names`).
    """
    name = "".join("_" if c in "#," or unicodedata.category(c)[0] == "C" else c for c in stem)
    name = " ".join(name.split()).lstrip(". ")  # split() also splits at Unicode's line separators
    return re.sub(r"\.(jpe?g|png)$", r"_\1", name, flags=re.IGNORECASE).strip() or "face"
