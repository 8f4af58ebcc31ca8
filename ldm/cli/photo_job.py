"""The tasks `photo` and `faces` of the command line."""

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ldm.checkpoints.locate import DEMO, FACE_PARSER
from ldm.data.images import save_png
from ldm.data.photo_file import PhotoFile
from ldm.output_files import check_outputs
from ldm.parsing import FaceParser
from ldm.parsing.photo_faces import Face, find_faces
from ldm.pipeline.photo_editor import Photo, PhotoEditor
from ldm.pipeline.region_color import parse_colors
from ldm.pipeline.style_code import StyleCode


def run_photo(options: argparse.Namespace) -> int:
    """Do the task; return 0."""
    if options.out is not None:
        style = getattr(options, "style", None)
        check_outputs([options.out], [options.photo, *([] if style is None else [Path(style)])])
    if options.task == "faces":
        return _faces(options)
    colors = None if options.color is None else parse_colors(options.color)  # before seconds of loading
    editor = PhotoEditor.from_pretrained(
        options.checkpoint or DEMO, options.parser or FACE_PARSER, device=options.device
    )
    photo = editor.open(options.photo)
    for note in photo.file.notes:
        print(f"{options.photo}: {note}")
    result = photo.edit(
        options.face,
        style=None if options.style is None else _style(editor, photo, options),
        color=None if colors is None else next(iter(colors.values())),
        regions=list(colors) if colors is not None else options.regions.split(","),
        strength=options.strength,
        detail=options.detail,
        seed=options.seed,
        steps=options.steps,
    )
    result.save(options.out, gps=options.gps)
    print(f"{options.out}: face {options.face} of {len(photo.faces)}")
    return 0


def _style(editor: PhotoEditor, photo: Photo, options: argparse.Namespace) -> StyleCode | Photo:
    if options.style == "random":
        return photo.random_style(options.face)
    if Path(options.style).suffix == ".style":
        return editor.pipe.load_style(options.style)
    return editor.open(options.style)


def _faces(options: argparse.Namespace) -> int:
    parser = FaceParser.from_pretrained(options.parser or FACE_PARSER, device=options.device)
    image = Image.fromarray(PhotoFile.open(options.photo).pixels)
    faces = find_faces(image, parser)
    facts = [
        {
            "face": i,
            "centre": [round(face.crop.centre.real, 1), round(face.crop.centre.imag, 1)],
            "side": round(face.side, 1),
            "tilt": round(face.tilt, 1),
            "score": round(face.score, 3),
        }
        for i, face in enumerate(faces)
    ]
    print(json.dumps(facts, indent=1))
    if options.out is not None:
        save_png(options.out, _numbered(image, faces))
    return 0


def _numbered(image: Image.Image, faces: list[Face]) -> Image.Image:
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
