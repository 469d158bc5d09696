"""``python -m tests.support.listing_modules``: the daemon, which writes the names of all imported modules at its end.

The file is named by the variable ``MODULES_FILE``. What Python prints about imports is of no use here: it is mixed with
the log, which another thread writes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from proxyd.cli.main import main

if __name__ == "__main__":
    try:
        main()
    finally:
        Path(os.environ["MODULES_FILE"]).write_text("\n".join(sys.modules), "utf-8")
