"""The arguments that say how a model is loaded. Imports nothing heavy."""

from argparse import ArgumentParser, _ArgumentGroup

from ldm.arguments import path_argument


def add_model_arguments(group: "ArgumentParser | _ArgumentGroup") -> None:
    """Add --config, --weights and --precision."""
    group.add_argument(
        "--config", type=path_argument, metavar="YAML", help="config of a weight file that has none"
    )
    group.add_argument(
        "--weights", choices=("ema", "raw"), help="EMA or raw weights of the UNet (default: ema if available)"
    )
    group.add_argument(
        "--precision",
        default="auto",
        help="auto, float32, bfloat16 or float16 (default: auto, the faster of float32 and bfloat16)",
    )
