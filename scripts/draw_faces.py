"""Write synthetic faces and their label maps to a folder that main.py and sample_sem.py accept as data."""

import argparse
import sys

from ldm.arguments import path_argument


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=path_argument, help="output folder, for images/N.png and labels/N.png")
    parser.add_argument("--count", type=int, default=8, help="number of faces (default: 8)")
    parser.add_argument(
        "--size", type=int, default=256, help="side in pixels, a multiple of 4 (default: 256)"
    )
    parser.add_argument("--seed", type=int, default=1, help="seed of the faces (default: 1)")
    parser.add_argument("--start", type=int, default=0, help="number of the first face (default: 0)")
    options = parser.parse_args(arguments)

    from tqdm import tqdm  # imports that --help does not need

    from ldm.data.images import save_png
    from ldm.data.label_maps import save_labels
    from ldm.data.synthetic.dataset import SyntheticFaces
    from ldm.output_files import check_outputs

    try:
        faces = SyntheticFaces(options.size, options.count, options.seed, options.start)
        names = [f"{faces.name(index)}.png" for index in range(len(faces))]
        files = [options.out / folder / name for folder in ("images", "labels") for name in names]
        # PNGs of generated faces take more than half a byte a pixel.
        check_outputs(files, [], len(faces) * options.size**2 // 2)
        for index in tqdm(range(len(faces)), desc="rendering", unit="face"):
            face = faces[index]
            save_png(options.out / "images" / names[index], face["image"])
            save_labels(options.out / "labels" / names[index], face["labels"], faces.label_set)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(f"wrote {len(faces)} faces to {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
