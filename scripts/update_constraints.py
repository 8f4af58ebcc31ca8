"""Write constraints.txt: the installed versions of everything that requirements-dev.txt needs, directly or not."""

import argparse
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
HEADER = """\
# Exact versions of all dependencies, direct and transitive, that the tests ran with. `make` installs with them.
# Written by scripts/update_constraints.py from an environment on Linux with CPU-only torch and Python 3.11.
"""


def requirements_of(file: Path) -> list[Requirement]:
    """Return the requirements in a file, and in those that it includes with `-r`."""
    found = []
    for line in file.read_text().splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("-r"):
            found += requirements_of(file.parent / line.removeprefix("-r").strip())
        elif line:
            found.append(Requirement(line))
    return found


def closure(requirements: list[Requirement]) -> dict[str, Version]:
    """Return the installed version of every package that the requirements need here, by canonical name.

    Raises:
        PackageNotFoundError: one of them is not installed.
    """
    versions: dict[str, Version] = {}
    seen: set[tuple[str, str]] = set()
    left = [(requirement, extra) for requirement in requirements for extra in ("", *requirement.extras)]
    while left:
        requirement, extra = left.pop()
        name = canonicalize_name(requirement.name)
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        package = distribution(name)
        versions[name] = Version(package.version)
        for text in package.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                left += [(needed, extra) for extra in ("", *needed.extras)]
    return versions


def constraints(requirements: Path = ROOT / "requirements-dev.txt") -> str:
    """Return the text of constraints.txt. Local version labels, such as torch's +cpu, are left out."""
    versions = closure(requirements_of(requirements))
    return HEADER + "".join(f"{name}=={version.public}\n" for name, version in sorted(versions.items()))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "constraints.txt", help="(constraints.txt)")
    options = parser.parse_args(arguments)
    try:
        text = constraints()
    except PackageNotFoundError as error:
        parser.error(f"{error.name} is not installed; run `pip install -r requirements-dev.txt` first")
    options.out.write_text(text)
    print(f"{options.out}: {text.count('==')} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
