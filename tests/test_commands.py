"""Every command in README, docs, model cards, configs and module docstrings parses; every script is documented."""

import argparse
import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser as torchrun_parser

from ldm.bundle import find_config
from ldm.cli import grammar
from ldm.cli.commands import COMMANDS
from ldm.studio.options import build_parser as studio_parser
from ldm.training.command_line import parse as parse_training

ROOT = Path(__file__).parents[1]
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "checkpoints").glob("*.md")),
    *sorted((ROOT / "checkpoints").glob("*/*.md")),
    *sorted((ROOT / "assets").glob("*/*.md")),
]
SCRIPTS = [ROOT / "main.py", ROOT / "gradio_img2img.py", *sorted((ROOT / "scripts").glob("*.py"))]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
MODULES = (  # parts of other scripts, no commands
    "scripts/benchmarking.py",
    "scripts/celebamask_plan.py",
    "scripts/dataset_export.py",
)
OURS = ("python", "sca-dm", "torchrun", "make", "pip")
OTHERS = ("git", "cd", "conda", ".", "hf", "twine", "docker")
PYTHON_MODULES = ("venv", "pip", "pytest", "build", "tests.fuzz", "mkdocs")


class ParsedError(Exception):
    """Stops a script after its arguments are parsed."""


def commands_in(text: str) -> Iterator[str]:
    """Yield the commands in indented and fenced blocks, and inline code that starts like one; lines joined."""
    text = re.sub(r" *\\\n\s*", " ", text)
    text = re.sub(r"```python\n.*?```", "", text, flags=re.DOTALL)
    fenced = re.findall(r"```(?:bash|sh|console)\n(.*?)```", text, re.DOTALL)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    blocks = [line for block in fenced for line in block.splitlines()] + re.findall(
        r"(?m)^(?: {2,}|\t)(\S.*)$", text
    )
    programs = "|".join(map(re.escape, (*OURS, *OTHERS)))
    for line in blocks:
        if re.match(rf"(?:[A-Z_]+=\S* )*(?:{programs})(?: |$)", line) and not line.startswith(". "):
            yield line
    for code in re.findall(r"`([^`\n]+)`", text):
        mention = re.fullmatch(r"sca-dm \w+|python -m [\w.]+|python \S+\.py", code)
        if re.match(r"(?:[A-Z_]+=\S* )*(?:python|sca-dm|torchrun|make|pip) \S", code) and "..." not in code:
            yield f"{code} --help" if mention else code  # the name of a command, without its arguments


def documented() -> Iterator[tuple[str, str]]:
    """Yield (file, command) of everything that people read."""
    for page in PAGES:
        yield from ((str(page.relative_to(ROOT)), command) for command in commands_in(page.read_text()))
    for file in [*SCRIPTS, *sorted((ROOT / "ldm").rglob("*.py"))]:
        text = ast.get_docstring(ast.parse(file.read_text())) or ""
        yield from ((str(file.relative_to(ROOT)), command) for command in commands_in(text))
    for file in CONFIGS:
        comments = "\n".join(line[1:] for line in file.read_text().splitlines() if line.startswith("#"))
        yield from ((str(file.relative_to(ROOT)), command) for command in commands_in(comments))


def parse_script(script: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a script until its arguments are parsed."""
    assert (ROOT / script).is_file(), script
    if script == "main.py":
        check_training(arguments)
    elif script == "gradio_img2img.py":
        studio_parser().parse_args(arguments)
    elif script == "scripts/sample_sem.py":
        parse_sca_dm(arguments)
    else:
        for name in ("parse_args", "parse_intermixed_args"):
            monkeypatch.setattr(
                argparse.ArgumentParser, name, stop_after(getattr(argparse.ArgumentParser, name))
            )
        with pytest.raises((ParsedError, SystemExit)) as stop:
            importlib.import_module(script.removesuffix(".py").replace("/", ".")).main(arguments)
        if stop.type is SystemExit:
            raise stop.value


def stop_after(parse):
    def parsed(self, arguments=None, namespace=None):
        parse(self, arguments, namespace)
        raise ParsedError

    return parsed


def check_training(arguments: list[str]) -> None:
    for config in parse_training(arguments).base:
        assert find_config(Path(config)).is_file() or config.startswith("data/"), (
            config
        )  # of `sca-dm dataset`


def parse_sca_dm(arguments: list[str]) -> None:
    if arguments[0] in COMMANDS:
        {"studio": studio_parser().parse_args, "train": check_training}[arguments[0]](arguments[1:])
    else:
        parser = grammar.build_parser()
        grammar.check(parser, parser.parse_args(arguments))


def check_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[0] != "-m":
        parse_script(words[0], words[1:], monkeypatch)
    elif words[1] == "ldm":
        parse_sca_dm(words[2:])
    else:
        assert words[1] in PYTHON_MODULES, words[1]


def check_pip(words: list[str]) -> None:
    """Check that the named extras exist."""
    extras = re.findall(r'^ {8}"(\w+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE)
    for name in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(name.split(",")) <= set(extras), name


def check(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail unless the command can be parsed and the files of this repository that it names exist."""
    try:
        parse_command(command, monkeypatch)
    except SystemExit as stop:
        assert stop.code == 0 and command.endswith("--help"), command


def parse_command(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(re.sub(r"^(?:[A-Z_]+=\S* )+", "", command), comments=True)
    words = [word for word in words if not word.startswith("$")]  # variables of the shell
    program = words.pop(0)
    if program == "python":
        check_python(words, monkeypatch)
    elif program == "sca-dm":
        parse_sca_dm(words)
    elif program == "torchrun":
        options = torchrun_parser().parse_args(words)
        parse_script(options.training_script, options.training_script_args, monkeypatch)
    elif program == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in words if "=" not in word} <= set(targets)
    elif program == "pip":
        check_pip(words)
    else:
        assert program in OTHERS


DOCUMENTED = list(documented())


@pytest.mark.parametrize(("file", "command"), DOCUMENTED, ids=[f"{f}: {c}" for f, c in DOCUMENTED])
def test_documented_commands_parse(file: str, command: str, monkeypatch) -> None:
    check(command, monkeypatch)


@pytest.mark.parametrize(
    "command",
    [
        "python main.py -b configs/latent-diffusion/nothing.yaml -t",
        "python main.py -b configs/autoencoder/synthetic-32.yaml --train-it",
        "python scripts/nothing.py",
        "python scripts/evaluate.py --weigths runs/RUN",
        "python -m nothing",
        "sca-dm photo a.jpg -o b.jpg",
        "sca-dm train -b nothing.yaml -t",
        "torchrun --nproc-per-node 8 scripts/evaluate.py --weigths runs/RUN",
        "make nothing",
        'pip install -e ".[nothing]"',
    ],
)
def test_mistakes_in_commands_are_found(command: str, monkeypatch) -> None:
    with pytest.raises(AssertionError):
        check(command, monkeypatch)


def test_commands_are_found_in_every_form() -> None:
    text = "Run `make a` or\n\n    python b.py \\\n        --c\n\n"
    text += "```bash\nsca-dm d  # e\n```\n\n```python\nmake = f\n```\n"
    assert list(commands_in(text)) == ["sca-dm d  # e", "python b.py --c", "make a"]


@pytest.mark.parametrize("script", [str(path.relative_to(ROOT)) for path in SCRIPTS])
def test_every_script_is_documented(script: str) -> None:
    if script not in MODULES:
        pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
        assert any(script in page.read_text() for page in pages)
