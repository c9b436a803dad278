"""``python -m tracefwd`` is the command ``tracefwd``."""

import sys

from tracefwd.service.cli import main

if __name__ == "__main__":
    sys.exit(main())
