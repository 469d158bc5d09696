"""The resource limits that the daemon sets for itself, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource
from proxyd.daemon.rlimits import forbid_core_dumps, raise_file_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
raise_file_limit()
forbid_core_dumps()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
print(soft == hard, resource.getrlimit(resource.RLIMIT_CORE)[0])
"""


def test_the_file_limit_is_raised_and_core_dumps_are_off() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["True", "0"]
