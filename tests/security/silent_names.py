"""The daemon, with a resolver that stays silent for a minute where a name ends in ``.invalid``."""

from __future__ import annotations

import socket
import sys
import time
from typing import Any

from proxyd.__main__ import main

_getaddrinfo = socket.getaddrinfo


def _silent(host: Any, *more: Any, **options: Any) -> Any:
    if str(host).endswith(".invalid"):
        time.sleep(60)
    return _getaddrinfo(host, *more, **options)


socket.getaddrinfo = _silent

if __name__ == "__main__":
    sys.exit(main())
