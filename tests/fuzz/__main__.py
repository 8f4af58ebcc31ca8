"""Run thousands of malformed inputs and print how many failed, by kind: `make fuzz`."""

import argparse
import sys
import time

import ldm  # noqa: F401 (sets OMP_WAIT_POLICY, before torch is imported)
from tests.fuzz.kinds import KINDS, failures


def main() -> int:
    """Run the command line; return 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kind", choices=list(KINDS), action="append", help="only this kind; can be repeated"
    )
    parser.add_argument("--cases", type=int, default=400, help="cases of each kind (400)")
    parser.add_argument(
        "--start", type=int, default=0, help="number of the first case, which is its seed (0)"
    )
    options = parser.parse_args()
    total = 0
    for kind in options.kind or KINDS:
        began, failed = time.monotonic(), 0
        for fault in failures(kind, options.cases, options.start):
            failed += 1
            print(f"  {fault}", flush=True)
        total += failed
        took = time.monotonic() - began
        print(f"{kind}: {failed} of {options.cases} failed, {took:.0f} s", flush=True)
    return int(total > 0)


if __name__ == "__main__":
    sys.exit(main())
