"""Run all kinds and print tried and failed cases: `make fuzz`, or python -m tests.fuzz --kind photos."""

import argparse
import sys

from tests.fuzz.kinds import KINDS, failures


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 1 if a case failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--kind", action="append", choices=KINDS, help="may be repeated (default: all)")
    parser.add_argument("--cases", type=int, help="cases of each kind (default: of all kinds 5,400)")
    parser.add_argument("--seed", type=int, default=0, help="of the changes (default: 0)")
    options = parser.parse_args(arguments)
    rows = []
    for kind in options.kind or KINDS:
        count, failed = options.cases or KINDS[kind].whole, 0
        for failure in failures(kind, count, options.seed):
            print(failure.encode("ascii", "backslashreplace").decode(), flush=True)
            failed += 1
        rows.append((kind, count, failed))
    rows.append(("all", sum(row[1] for row in rows), sum(row[2] for row in rows)))
    for kind, count, failed in (("kind", "tried", "failed"), *rows):
        print(f"{kind:20}{count:>8}{failed:>8}")
    return int(rows[-1][2] > 0)


if __name__ == "__main__":
    sys.exit(main())
