"""Subcommands of `sca-dm` that have a command line of their own."""

import argparse
from collections.abc import Sequence

COMMANDS = {
    "studio": "edit faces in the browser",
    "train": "train, validate and test from YAML",
}


def add_commands(tasks: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """List the commands in the help of `sca-dm`."""
    for name, description in COMMANDS.items():
        tasks.add_parser(name, help=description, add_help=False)


def run_command(name: str, arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    if name == "studio":
        from ldm.studio import main as studio

        return studio(arguments, "sca-dm studio")
    from ldm.training.command_line import main as train

    return train(list(arguments), "sca-dm train")
