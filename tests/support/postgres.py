"""A real PostgreSQL for tests: on a unix socket in a temporary folder, run by an ordinary user."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from proxyd.store.interface import StoreFailed

__all__ = ["PASSWORD", "Postgres", "losing_answers", "postgres", "running_postgres"]

#: Of the role ``proxy``, which the tests use.
PASSWORD = "the-password-of-the-test-database"


@contextmanager
def losing_answers(database: Any) -> Iterator[None]:
    """Let work be done in `database`, whose success nobody learns of."""
    run = database.run

    def lose_the_answer(work: Any) -> Any:
        run(work)
        raise StoreFailed("no answer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database, "run", lose_the_answer)
        yield


@dataclass
class Postgres:
    """A server that runs."""

    folder: Path
    bin: Path
    user: str | None
    databases: int = 0

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://proxy:{password}@/{database}?host={quote(str(self.folder), safe='')}"

    def new_database(self) -> str:
        """Make an empty database; gives its address."""
        self.databases += 1
        name = f"test{self.databases}"
        self.call("createdb", "-h", str(self.folder), "-U", "proxy", name)
        return self.url(name)

    def sql(self, url: str, statement: str) -> str:
        """Run a statement as another program would; gives the values that it returns, one row a line."""
        return self.call("psql", url, "-qtAX", "-c", statement).strip()

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c fsync=off -c max_connections=40 -c shared_buffers=8MB"
        self.call(
            "pg_ctl",
            "-D",
            str(self.folder / "data"),
            "-l",
            str(self.folder / "log"),
            "-w",
            "-o",
            options,
            "start",
        )

    def stop(self) -> None:
        self.call("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def freeze(self, *, is_on: bool) -> None:
        """Stop the server and all its children where they are, or let them go on."""
        leader = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        number = signal.SIGSTOP if is_on else signal.SIGCONT
        os.kill(leader, number)  # first, since each new connection is another child
        listed = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(leader)], capture_output=True, text=True, check=True
        )
        for pid in map(int, listed.stdout.split()):
            with suppress(ProcessLookupError):  # of a connection that has ended meanwhile
                os.kill(pid, number)

    def call(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [str(self.bin / program), *arguments],
            user=self.user,
            cwd="/",
            env={"PATH": os.environ["PATH"], "PGPASSWORD": PASSWORD, "LC_ALL": "C"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{program}: {done.stdout}"
        return done.stdout


def _programs() -> Path | None:
    """The folder of the server's programs; Debian keeps them out of PATH."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).resolve().parent
    places = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return places[-1].parent if places else None


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """Start a server; skips the test where there is none."""
    pytest.importorskip("asyncpg", reason="asyncpg is not installed: pip install 'claude-proxyd[postgres]'")
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL's server is not installed: apt-get install postgresql")
    user = None
    if os.getuid() == 0:  # as which it refuses to run
        known = {each.pw_name for each in pwd.getpwall()}
        user = next(each for each in ("postgres", "nobody", "daemon") if each in known)
    # Not in pytest's folder, which only its owner may enter; the path of a socket has at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    server = Postgres(folder, programs, user)
    try:
        if user is not None:
            shutil.chown(folder, user)
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        server.call(
            "initdb", "-D", str(folder / "data"), "-U", "proxy", "--pwfile", str(folder / "password"), "-E", "UTF8",
            "--auth=scram-sha-256", "--no-sync", "--locale=C",
        )  # fmt: skip
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """One server for all tests of a worker; each test makes a database of its own."""
    with running_postgres() as server:
        yield server
