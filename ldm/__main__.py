"""`python -m ldm`: the command line of sampling."""

import sys

from ldm.cli import main

sys.exit(main())
