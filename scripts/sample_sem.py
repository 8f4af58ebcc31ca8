"""The command line `sca-dm` without an installation: sample and edit faces."""

import sys

from ldm.cli import main

if __name__ == "__main__":
    sys.exit(main())
