"""The studio: edit a face in the browser. `python gradio_img2img.py --help` lists the options."""

import sys

from ldm.studio import main

if __name__ == "__main__":
    sys.exit(main())
