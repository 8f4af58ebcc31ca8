"""Ablation study: train and evaluate variants of a config, and write a table of their metrics.

The study is described by a YAML, see configs/ablation/recipe.yaml. After an interruption, the same command
continues.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from ldm.arguments import path_argument
from ldm.atomic_files import write_text

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = ("base", "settings", "variants", "evaluation")
COLUMNS = ("PSNR", "whole swap", "hair: error", "leakage", "lips: error", "random hair: inside", "outside")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ablation", type=path_argument, help="YAML of the study")
    parser.add_argument(
        "--out", type=path_argument, required=True, help="output folder: one folder per variant, and table.md"
    )
    parser.add_argument(
        "--only", action="append", default=[], help="name of a variant; may be repeated (default: all)"
    )
    parser.add_argument("--seed", type=int, default=23, help="seed of every training (default: 23)")
    parser.add_argument(
        "overrides", nargs="*", help="config values of all variants as dotted.key=value, as for main.py"
    )
    options = parser.parse_intermixed_args(arguments)
    options.out = options.out.resolve()  # commands run in the root of the repository

    from ldm.checkpoints.config_files import read_yaml  # imports that --help does not need

    try:
        plan: Any = read_yaml(options.ablation)
    except ValueError as error:
        parser.error(str(error))
    if not isinstance(plan, dict) or not set(SECTIONS) <= set(plan):
        parser.error(f"{options.ablation} must be a mapping with {', '.join(SECTIONS)}")
    unknown = set(options.only) - set(plan["variants"])
    if unknown:
        parser.error(
            f"--only: unknown variant {', '.join(sorted(unknown))}; {options.ablation} has "
            f"{', '.join(plan['variants'])}"
        )
    rows = []
    for name in plan["variants"]:
        folder: Path = options.out / name.replace(" ", "_").replace(",", "")
        if not options.only or name in options.only:
            base, settings = variant(plan, name)
            _train(folder, base, [*settings, *options.overrides], options.seed)
            _evaluate(folder, plan)
        if (folder / "report" / "report.json").is_file():
            rows.append((name, *_figures(json.loads((folder / "report" / "report.json").read_text()))))
    table = _table(rows)
    write_text(options.out / "table.md", table + "\n")
    print(table)
    return 0


def variant(plan: Any, name: str) -> tuple[list[str], list[str]]:
    """Return the configs and the overrides of a variant, for main.py."""
    own = plan["variants"][name]
    own = own if isinstance(own, dict) else {"settings": own}
    return own.get("base", plan["base"]), [*plan["settings"], *own.get("settings", [])]


def _train(folder: Path, base: list[str], settings: list[str], seed: int) -> None:
    """Train a variant in `folder`, or resume its training."""
    if (folder / "trained").exists():
        return
    runs = sorted((folder / "run").glob("*/checkpoints/last.ckpt"))
    if runs:
        _run("main.py", "--resume", runs[-1].parents[1], "-t")
    else:
        given = ["--logdir", folder / "run", "--name", "variant", "--seed", seed]
        _run("main.py", "-b", *base, "-t", *given, *settings)
    (folder / "trained").touch()


def _evaluate(folder: Path, plan: Any) -> None:
    if not (folder / "report" / "report.json").is_file():
        (run,) = (folder / "run").glob("*/checkpoints/last.ckpt")
        out = ["--out", folder / "report"]
        _run("scripts/evaluate.py", "--weights", run.parents[1], *plan["evaluation"], *out)


def _figures(report: dict[str, Any]) -> list[float | None]:
    """Return the values of the table's columns; None for metrics that the report lacks."""
    swaps, diversity = report["swaps"], report["chance"]["random hair"]["means"]
    return [
        report["reconstruct"]["means"].get("psnr"),
        swaps["whole"]["means"].get("psnr"),
        swaps["hair"]["means"].get("error_ratio"),
        swaps["hair"]["means"].get("leakage_ratio"),
        swaps["lips"]["means"].get("error_ratio"),
        diversity.get("l1_inside"),
        diversity.get("l1_outside"),
    ]


def _table(rows: list[tuple[Any, ...]]) -> str:
    """Return a Markdown table."""
    lines = [f"| variant | {' | '.join(COLUMNS)} |", "| --- " * (1 + len(COLUMNS)) + "|"]
    for name, *figures in rows:
        cells = ["-" if f is None else f"{f:.2f}" if f > 5 else f"{f:.3f}" for f in figures]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _run(script: str, *arguments: object) -> None:
    """Print a command and run it; exit with its status if it fails."""
    words = [script, *map(str, arguments)]
    print(f"\n$ python {shlex.join(words)}", flush=True)
    code = subprocess.run([sys.executable, ROOT / script, *words[1:]], cwd=ROOT).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
