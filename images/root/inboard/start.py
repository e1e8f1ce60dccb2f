"""`python /start.py`, as the older image was started."""

import os
import sys

os.execvp("mooring", ["mooring", "run", *sys.argv[1:]])  # noqa: S606, S607
