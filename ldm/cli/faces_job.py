"""The task `faces`: which faces a photo has."""

import argparse
import json

from PIL import Image, ImageDraw, ImageFont

from ldm.checkpoints.locate import FACE_PARSER
from ldm.data.images import save_png
from ldm.data.photo_file import PhotoFile
from ldm.output_files import check_outputs
from ldm.parsing import FaceParser
from ldm.parsing.photo_faces import Face, find_faces


def run_faces(options: argparse.Namespace) -> int:
    """List the faces of a photo; return 0."""
    if options.out is not None:
        check_outputs([options.out], [options.photo])
    parser = FaceParser.from_pretrained(options.parser or FACE_PARSER, device=options.device)
    image = Image.fromarray(PhotoFile.open(options.photo).pixels)
    faces = find_faces(image, parser)
    facts = [
        {
            "face": i,
            "center": [round(face.crop.center.real, 1), round(face.crop.center.imag, 1)],
            "side": round(face.side, 1),
            "tilt": round(face.tilt, 1),
            "score": round(face.score, 3),
        }
        for i, face in enumerate(faces)
    ]
    print(json.dumps(facts, indent=1))
    if options.out is not None:
        save_png(options.out, numbered(image, faces))
    return 0


def numbered(image: Image.Image, faces: list[Face]) -> Image.Image:
    """Return the photo with each face's crop and number."""
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    for i, face in enumerate(faces):
        corners = [face.crop.point(x, y) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1), (-1, -1))]
        width = max(1, round(face.side / 100))
        draw.line([(corner.real, corner.imag) for corner in corners], "yellow", width)
        font = ImageFont.load_default(max(10, face.side / 8))
        draw.text((corners[0].real + 2 * width, corners[0].imag + 2 * width), str(i), "yellow", font)
    return drawn
