"""Convert the CelebAMask-HQ download to the folders that training reads.

    python scripts/prepare_celebamask.py CelebAMask-HQ data/celebamask-hq

writes data/celebamask-hq/train/images/N.jpg and train/labels/N.png, and the same for test/. Some faces,
without a split, such as the small set that many configs name:

    python scripts/prepare_celebamask.py CelebAMask-HQ data/celebamask-hq-mini --names 0-999

writes data/celebamask-hq-mini/images/N.jpg and labels/N.png. After an interruption (Ctrl-C), the same command
continues.
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
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for a checkout that is not installed

from ldm.arguments import path_argument
from ldm.atomic_files import PARTIAL, WriteError, write_file, write_text
from ldm.output_files import OutputError, check_outputs
from scripts.celebamask_plan import MAPPING, PARTS, PHOTOS, Job, PreparationError, numbers, plan

JPEG_QUALITY = 95
MAX_PRINTED_ERRORS = 30


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0 if all faces were written, 1 on errors, 130 if interrupted."""
    options = parse(arguments)
    try:
        settings = {"split": options.split, "size": options.size}
        if options.names:
            settings |= {"split": None, "names": options.names}
        jobs = plan(options.download, options.output, options.split, options.size, options.names)
        check_room(jobs)
        check_settings(options.output, settings)
        remove_partial_files(jobs)
    except (PreparationError, OutputError, WriteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return run(jobs, options.workers, options.output)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("download", type=path_argument, help=f"unpacked download with {PHOTOS}/ and {PARTS}/")
    parser.add_argument("output", type=path_argument, help="output folder")
    faces = parser.add_mutually_exclusive_group()
    faces.add_argument(
        "--names",
        type=numbers,
        metavar="A-B,C",
        help="only these faces, in images/ and labels/ of the output folder itself, without a split",
    )
    faces.add_argument(
        "--split",
        choices=("ids", "celeba"),
        default="ids",
        help="ids: 0..27999 train, 28000..29999 test (default); celeba: train, val and test as in CelebA, from "
        f"{MAPPING}",
    )
    parser.add_argument(
        "--size", type=positive, help="side of the photos in pixels (default: 1024, unchanged)"
    )
    parser.add_argument(
        "--workers",
        type=positive,
        default=os.cpu_count() or 1,
        help="number of processes (default: all cores)",
    )
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    """Parse a positive integer."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return int(text)


def check_room(jobs: list[Job]) -> None:
    """Check that the missing files can be written and replace no photo of the download.

    Raises:
        OutputError: they cannot, or the disk lacks space.
    """
    missing = [job for job in jobs if not is_complete(job.image)]
    if jobs and jobs[0].size is not None:
        size = len(missing) * jobs[0].size ** 2 // 4  # a JPEG of a face takes about half a byte per pixel
    elif missing and _device(missing[0].photo) != _device(missing[0].output):
        size = sum(job.photo.stat().st_size for job in missing)
    else:
        size = 0  # hard links
    outputs = [job.image for job in missing] + [job.labels for job in jobs if not is_complete(job.labels)]
    check_outputs(outputs, [job.photo for job in jobs], size)


def _device(path: Path) -> int:
    """Return the device of a path, or of its nearest existing parent."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path.stat().st_dev


def check_settings(output: Path, settings: dict[str, Any]) -> None:
    """Record the settings in the output folder, so that files of different settings are not mixed.

    Raises:
        PreparationError: the folder has files of other settings, or a damaged record.
    """
    path = output / "prepare.json"
    if path.is_file():
        try:
            recorded = json.loads(path.read_text())
        except ValueError as error:  # invalid JSON or UTF-8
            raise PreparationError(f"{path} is damaged; delete it") from error
        if recorded != settings:
            raise PreparationError(
                f"{output} has files of the settings {recorded}, not of {settings}; choose another folder"
            )
        return
    output.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(settings) + "\n")


def remove_partial_files(jobs: list[Job]) -> None:
    """Delete the partial files of a killed run."""
    for folder in {job.output for job in jobs}:
        for path in (*folder.glob(f"images/.*{PARTIAL}"), *folder.glob(f"labels/.*{PARTIAL}")):
            path.unlink(missing_ok=True)


def run(jobs: list[Job], workers: int, output: Path) -> int:
    """Run the jobs in a pool of processes; return the exit status."""
    from tqdm import tqdm

    import ldm.data.datasets.celebamask  # noqa: F401  (so that forked workers have torch imported already)

    errors: list[str] = []
    done = 0
    pool = ProcessPoolExecutor(min(workers, len(jobs)), initializer=init_worker)
    try:
        with tqdm(total=len(jobs), unit="face", desc="preparing") as bar:
            for error in pool.map(prepare, jobs, chunksize=4):
                done += 1
                bar.update()
                if error:
                    errors.append(error)
    except KeyboardInterrupt:
        pool.shutdown(wait=True, cancel_futures=True)
        print(f"\ninterrupted after {_progress(done, jobs)}", file=sys.stderr)
        return 130
    except (BrokenProcessPool, OSError) as error:
        pool.shutdown(wait=True, cancel_futures=True)
        print(f"\nerror: {error}; {_progress(done, jobs)}", file=sys.stderr)
        return 1
    pool.shutdown()
    return report(errors, len(jobs), output)


def _progress(done: int, jobs: list[Job]) -> str:
    return f"{done} of {len(jobs)} faces; run the same command again to continue"


def report(errors: list[str], count: int, output: Path) -> int:
    """Print a summary and write the errors to prepare_errors.txt; return the exit status."""
    listing = output / "prepare_errors.txt"
    if not errors:
        listing.unlink(missing_ok=True)
        print(f"wrote {count} faces to {output}")
        return 0
    write_text(listing, "\n".join(errors) + "\n")
    print(f"{len(errors)} of {count} faces failed (full list in {listing}):", file=sys.stderr)
    for error in errors[:MAX_PRINTED_ERRORS]:
        print(f"  {error}", file=sys.stderr)
    print("Replace these files, then run the same command again", file=sys.stderr)
    return 1


def init_worker() -> None:
    """Leave Ctrl-C to the main process, and end the worker with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=exit_with, args=(parent.sentinel,), daemon=True).start()


def exit_with(sentinel: int) -> None:
    """Exit when the main process has ended."""
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def prepare(job: Job) -> str | None:
    """Write the missing files of a face; return an error message, or None."""
    from ldm.data.datasets.celebamask import merge_parts
    from ldm.data.images import ImageError
    from ldm.data.label_maps import save_labels
    from ldm.data.labels import CELEBAMASK_HQ

    try:
        if not is_complete(job.labels):
            save_labels(job.labels, merge_parts(job.parts, job.number), CELEBAMASK_HQ)
        if not is_complete(job.image):
            write_photo(job)
    except ImageError as error:
        return str(error)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            raise  # all other faces would fail too
        return f"{job.number}: {error}"
    return None


def is_complete(path: Path) -> bool:
    """Return whether a file exists; files are written atomically."""
    return path.is_file() and path.stat().st_size > 0


def write_photo(job: Job) -> None:
    """Write the photo: resized, or a hard link, or a copy if links are not supported."""
    from ldm.data.images import open_image, read_rgb

    with open_image(job.photo) as photo:
        rgb = read_rgb(photo, job.size or 64)  # an unchanged photo is decoded only to detect damage
    target = job.image
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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    sys.exit(main())
