"""The other faces that a command names: where a style or a shape comes from."""

from pathlib import Path

import torch
from torch import Tensor

from ldm.data.faces import Face, FaceFiles
from ldm.data.label_maps import load_labels
from ldm.pipeline import FacePipeline, StyleCode


class Others:
    """Styles and shapes by name, of one folder and one model."""

    def __init__(self, pipe: FacePipeline, files: FaceFiles) -> None:
        self.pipe, self.files = pipe, files

    def styles(
        self, source: str, faces: list[Face], option: str, mask: Path | None = None
    ) -> tuple[Tensor | None, list[StyleCode]]:
        """Return the images (B, 3, H, W) in [-1, 1] that `source` stands for, one per face, and their styles.

        A file of style codes has no images: None.
        """
        if Path(source).suffix == ".style":
            return None, [self.pipe.load_style(source)] * len(faces)
        others = [self.files.other(source, face.name, option, mask) for face in faces]
        image = torch.stack([other.image for other in others])
        return image, self.pipe.read_style(image, torch.stack([other.labels for other in others]))

    def shapes(self, source: str, faces: list[Face]) -> Tensor:
        """Return the label maps (B, H, W) that `source`, a name or a PNG, means for these faces."""
        if Path(source).suffix.lower() == ".png":
            return load_labels(source, self.pipe.label_set, self.pipe.size).expand(len(faces), -1, -1)
        return torch.stack([self.files.other(source, face.name, "--shape").labels for face in faces])
