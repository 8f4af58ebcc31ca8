"""Write generated faces and their label maps into a folder that main.py and sample_sem.py take as data."""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="the folder; gets images/N.png and labels/N.png")
    parser.add_argument("--count", type=int, default=8, help="how many (8)")
    parser.add_argument("--size", type=int, default=256, help="side in pixels, a multiple of 4 (256)")
    parser.add_argument("--seed", type=int, default=1, help="other seeds, other faces (1)")
    parser.add_argument("--start", type=int, default=0, help="number of the first face (0)")
    options = parser.parse_args(arguments)

    from tqdm import tqdm  # imports that --help does not need

    from ldm.data.images import save_labels, save_png
    from ldm.data.synthetic.dataset import SyntheticFaces

    try:
        faces = SyntheticFaces(options.size, options.count, options.seed, options.start)
    except ValueError as error:
        parser.error(str(error))
    for index in tqdm(range(len(faces)), desc="drawing", unit="face"):
        face = faces[index]
        save_png(options.out / "images" / f"{face['name']}.png", face["image"])
        save_labels(options.out / "labels" / f"{face['name']}.png", face["labels"], faces.label_set)
    print(f"{len(faces)} faces in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
