"""Make faces from label maps and styles, from the shell. The same as `sca-dm`, without installing."""

import sys

from ldm.cli import main

if __name__ == "__main__":
    sys.exit(main())
