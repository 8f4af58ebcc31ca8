"""Turn the CelebAMask-HQ download into the folders that training reads.

    python scripts/prepare_celebamask.py CelebAMask-HQ data/celebamask-hq

makes data/celebamask-hq/train/images/N.jpg, train/labels/N.png and the same under test/. It can be stopped
with Ctrl-C and started again with the same command: finished files stay.
"""

import argparse
import errno
import json
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ldm.atomic_files import PARTIAL, write_file, write_text

PHOTOS = "CelebA-HQ-img"
PARTS = "CelebAMask-HQ-mask-anno"
MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
IDS_PER_FOLDER = 2000
ALL_IDS = 30_000
FIRST_TEST_ID = 28_000
CELEBA_SPLITS = (
    ("train", 162_770),
    ("val", 182_637),
    ("test", 202_599),
)  # CelebA's partition: counts up to each end
JPEG_QUALITY = 95
ERRORS_SHOWN = 30


class PreparationError(ValueError):
    """The download or the output folder is not as it should be; the message says what to do."""


@dataclass(frozen=True)
class Job:
    """One face: where it comes from, where it goes."""

    number: int
    photo: Path
    parts: Path
    output: Path
    size: int | None


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status: 0 all done, 1 with errors, 130 stopped."""
    options = parse(arguments)
    try:
        jobs = plan(options.download, options.output, options.split, options.size)
        remember_settings(options.output, {"split": options.split, "size": options.size})
        remove_leftovers(jobs)
    except PreparationError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return run(jobs, options.workers, options.output)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("download", type=Path, help=f"the unpacked download, with {PHOTOS}/ and {PARTS}/")
    parser.add_argument("output", type=Path, help="where the folders go")
    parser.add_argument(
        "--split",
        choices=("ids", "celeba"),
        default="ids",
        help="ids: 0..27999 train, 28000..29999 test (default); celeba: train, val and test as in CelebA, by "
        f"{MAPPING}",
    )
    parser.add_argument(
        "--size", type=positive, help="resize the photos to SIZE pixels (default: keep their 1024)"
    )
    parser.add_argument(
        "--workers", type=positive, default=os.cpu_count() or 1, help="processes (default: all cores)"
    )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """Parse a whole number above zero."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above zero")
    return int(text)


def plan(download: Path, output: Path, split: str, size: int | None) -> list[Job]:
    """List one job for each photo of the download, in the order of their numbers.

    Raises:
        PreparationError: the download is not complete enough to begin.
    """
    root = download if (download / PHOTOS).is_dir() else download / "CelebAMask-HQ"
    for folder in (PHOTOS, PARTS):
        if not (root / folder).is_dir():
            raise PreparationError(
                f"there is no folder {folder} in {download}; unpack CelebAMask-HQ.zip and name the folder it makes"
            )
    photos = {int(path.stem): path for path in (root / PHOTOS).glob("*.jpg") if path.stem.isdecimal()}
    if not photos:
        raise PreparationError(f"{root / PHOTOS} has no N.jpg; unpack the download again")
    if len(photos) < ALL_IDS:
        print(f"note: {len(photos)} of the dataset's {ALL_IDS} photos are there", file=sys.stderr)
    splits = celeba_splits(root / MAPPING) if split == "celeba" else {}
    if split == "celeba" and (unknown := sorted(set(photos) - set(splits))):
        raise PreparationError(f"{root / MAPPING} lacks {len(unknown)} photos, the first is {unknown[0]}.jpg")

    def folder_of(number: int) -> str:
        return splits[number] if splits else "train" if number < FIRST_TEST_ID else "test"

    return [
        Job(number, photo, root / PARTS / str(number // IDS_PER_FOLDER), output / folder_of(number), size)
        for number, photo in sorted(photos.items())
    ]


def celeba_splits(mapping: Path) -> dict[int, str]:
    """Read which split of CelebA each face belongs to: number -> train, val or test.

    The lines are `idx orig_idx orig_file`, such as `0 119613 119614.jpg`: orig_idx counts CelebA's files from 0.

    Raises:
        PreparationError: no such file, or a line that is none of these.
    """
    if not mapping.is_file():
        raise PreparationError(f"--split celeba needs {mapping}, which is part of the download")
    splits = {}
    for line_number, line in enumerate(mapping.read_text().splitlines(), start=1):
        fields = line.split()
        if not fields or fields[0] == "idx":
            continue
        try:
            number, original, file_number = int(fields[0]), int(fields[1]), int(Path(fields[2]).stem)
            splits[number] = next(name for name, end in CELEBA_SPLITS if 0 <= original < end)
        except (ValueError, IndexError, StopIteration):
            original = file_number = 0
        if original + 1 != file_number:
            raise PreparationError(
                f"{mapping}, line {line_number}: found {line!r}, wanted a line such as '0 119613 119614.jpg'"
            )
    return splits


def remember_settings(output: Path, settings: dict[str, Any]) -> None:
    """Keep the settings beside the result, so that files of two kinds never mix.

    Raises:
        PreparationError: the folder was begun with other settings, or with ones that cannot be read.
    """
    path = output / "prepare.json"
    if path.is_file():
        try:
            before = json.loads(path.read_text())
        except ValueError as error:  # of JSON and of UTF-8
            raise PreparationError(f"{path} is damaged; delete it") from error
        if before != settings:
            raise PreparationError(
                f"{output} was begun with {before}, now it is {settings}; choose another folder"
            )
        return
    output.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(settings) + "\n")


def remove_leftovers(jobs: list[Job]) -> None:
    """Delete the half-written files that a killed run left."""
    for folder in {job.output for job in jobs}:
        for path in (*folder.glob(f"images/.*{PARTIAL}"), *folder.glob(f"labels/.*{PARTIAL}")):
            path.unlink(missing_ok=True)


def run(jobs: list[Job], workers: int, output: Path) -> int:
    """Do the jobs in a pool of processes; return the exit status."""
    from tqdm import tqdm

    import ldm.data.datasets.celebamask  # noqa: F401  (here, so that the workers inherit it: torch takes seconds to import)

    errors: list[str] = []
    done = 0
    pool = ProcessPoolExecutor(min(workers, len(jobs)), initializer=prepare_worker)
    try:
        with tqdm(total=len(jobs), unit="face", desc="preparing") as bar:
            for error in pool.map(prepare, jobs, chunksize=4):
                done += 1
                bar.update()
                if error:
                    errors.append(error)
    except KeyboardInterrupt:
        pool.shutdown(wait=True, cancel_futures=True)
        print(f"\nstopped; {done} of {len(jobs)} faces are done. The same command continues", file=sys.stderr)
        return 130
    except (BrokenProcessPool, OSError) as error:
        pool.shutdown(wait=True, cancel_futures=True)
        print(
            f"\nerror: {error}; {done} of {len(jobs)} faces are done. The same command continues",
            file=sys.stderr,
        )
        return 1
    pool.shutdown()
    return report(errors, len(jobs), output)


def report(errors: list[str], count: int, output: Path) -> int:
    """Say how it went; the errors also go into a file. Return the exit status."""
    listing = output / "prepare_errors.txt"
    if not errors:
        listing.unlink(missing_ok=True)
        print(f"{count} faces are in {output}")
        return 0
    write_text(listing, "\n".join(errors) + "\n")
    print(f"{len(errors)} of {count} faces failed (all of them: {listing}):", file=sys.stderr)
    for error in errors[:ERRORS_SHOWN]:
        print(f"  {error}", file=sys.stderr)
    print("Mend or replace these files, then run the same command again", file=sys.stderr)
    return 1


def prepare_worker() -> None:
    """Set up a worker: Ctrl-C is the main process's business, and no worker outlives it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=die_with, args=(parent.sentinel,), daemon=True).start()


def die_with(sentinel: int) -> None:
    """Wait until the main process is gone, then end this one."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def prepare(job: Job) -> str | None:
    """Make the files of one face that are not there yet; return what went wrong, or None."""
    from ldm.data.datasets.celebamask import merge_parts
    from ldm.data.images import ImageError, save_labels
    from ldm.data.labels import CELEBAMASK_HQ

    try:
        labels = job.output / "labels" / f"{job.number}.png"
        if not is_complete(labels):
            save_labels(labels, merge_parts(job.parts, job.number), CELEBAMASK_HQ)
        photo = job.output / "images" / f"{job.number}.jpg"
        if not is_complete(photo):
            place_photo(job, photo)
    except ImageError as error:
        return str(error)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise  # every other face would fail too
        return f"{job.number}: {error}"
    return None


def is_complete(path: Path) -> bool:
    """Tell whether a file is there; files appear only when they are complete."""
    return path.is_file() and path.stat().st_size > 0


def place_photo(job: Job, target: Path) -> None:
    """Put the photo in its place: resized, or else linked, or copied where links do not work."""
    from ldm.data.images import open_image, read_rgb

    with open_image(job.photo) as photo:
        rgb = read_rgb(photo, job.size or 64)  # unresized photos are decoded only to notice damage
    if job.size is not None:
        write_file(target, lambda file: rgb.save(file, "JPEG", quality=JPEG_QUALITY, subsampling=0))
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(job.photo, target)
    except OSError:
        with job.photo.open("rb") as source:
            write_file(target, lambda file: shutil.copyfileobj(source, file))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops as Ctrl-C does
    sys.exit(main())
