"""What the keys of a recipe are worth: train every variant for the same steps, evaluate it, and lay out one table.

Takes a YAML (configs/ablation/recipe.yaml explains itself). Stopped, the same command goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

from ldm.atomic_files import write_text

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("PSNR", "whole swap", "hair: error", "leakage", "lips: error", "random hair: inside", "outside")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ablation", type=Path, help="the YAML of variants")
    parser.add_argument("--out", type=Path, required=True, help="gets a folder a variant, and table.md")
    parser.add_argument(
        "--only", action="append", default=[], help="name of a variant; may be given often (all)"
    )
    parser.add_argument("--seed", type=int, default=23, help="of every training (23)")
    parser.add_argument("overrides", nargs="*", help="dotted.key=value for every variant, as for main.py")
    options = parser.parse_intermixed_args(arguments)
    options.out = options.out.resolve()  # the commands run in the repository's root

    from omegaconf import OmegaConf  # an import that --help does not need

    plan: Any = OmegaConf.to_container(OmegaConf.load(options.ablation))
    unknown = set(options.only) - set(plan["variants"])
    if unknown:
        parser.error(
            f"--only {', '.join(sorted(unknown))}: {options.ablation} has {', '.join(plan['variants'])}"
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
    """Return the YAMLs and the settings of a variant, as main.py takes them."""
    own = plan["variants"][name]
    own = own if isinstance(own, dict) else {"settings": own}
    return own.get("base", plan["base"]), [*plan["settings"], *own.get("settings", [])]


def _train(folder: Path, base: list[str], settings: list[str], seed: int) -> None:
    """Train a variant into `folder`, or go on with it."""
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
    """Return what stands in the table's columns; None for what could not be told of so few faces."""
    swaps, hair = report["swaps"], report["chance"]["random hair"]["means"]
    return [
        report["reconstruct"]["means"].get("psnr"),
        swaps["whole"]["means"].get("psnr"),
        swaps["hair"]["means"].get("error_ratio"),
        swaps["hair"]["means"].get("leakage_ratio"),
        swaps["lips"]["means"].get("error_ratio"),
        hair.get("l1_inside"),
        hair.get("l1_outside"),
    ]


def _table(rows: list[tuple[Any, ...]]) -> str:
    """Lay the figures out as a Markdown table."""
    lines = [f"| variant | {' | '.join(COLUMNS)} |", "| --- " * (1 + len(COLUMNS)) + "|"]
    for name, *figures in rows:
        cells = ["-" if f is None else f"{f:.2f}" if f > 5 else f"{f:.3f}" for f in figures]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _run(script: str, *arguments: object) -> None:
    """Print a command and run it; leave with its exit code if it fails."""
    words = [script, *map(str, arguments)]
    print(f"\n$ python {shlex.join(words)}", flush=True)
    code = subprocess.run([sys.executable, ROOT / script, *words[1:]], cwd=ROOT).returncode
    if code:
        sys.exit(code)


if __name__ == "__main__":
    sys.exit(main())
