"""``python -m proxyd``, and the console script ``claude-proxy``."""

from __future__ import annotations

from proxyd.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
