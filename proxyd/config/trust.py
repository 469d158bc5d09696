"""Safe reading of files that decide what runs or where keys go: refused where other users can change or replace them.

A path is trusted when its file, every parent folder and every symbolic link on the way belong to the user or to root,
and nobody else may write the file or the folders. In a folder with the sticky bit, such as /tmp, others may add files
but not replace ours. A group may write when it has no other members, like the private group of each user on Debian and
Fedora. The file is opened first, checked by its descriptor, and read from that descriptor.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import stat
from pathlib import Path

__all__ = ["Untrusted", "read_trusted"]

#: Most links in a path, as in Linux.
_MAX_LINKS = 40


class Untrusted(Exception):
    """Other users may change what the path leads to. The message names the fault and the command that removes it."""


def read_trusted(path: Path, max_bytes: int = -1) -> bytes:
    """Return the content of the file that `path` leads to, at most `max_bytes` of it.

    Raises:
        Untrusted: others may change or replace it, or it is no regular file.
        OSError: it cannot be read.
    """
    # O_NONBLOCK: opening a FIFO without a writer would block.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Untrusted(f"{path} is no regular file; replace it by one")
        _check(path, status)
        _check_ancestors(path)
        return file.read(max_bytes)


def _check_ancestors(path: Path) -> None:
    """Check each folder and link that leads to `path`."""
    current = Path("/")
    _check(current, os.lstat(current))
    pending = list(reversed(_parts(os.path.join(os.getcwd(), path))))
    links = 0
    while pending:
        part = pending.pop()
        if part == "..":
            current = current.parent
            continue
        current = current / part
        status = os.lstat(current)
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > _MAX_LINKS:
                raise Untrusted(f"{path} leads through more than {_MAX_LINKS} links; give the file itself")
            _check_owner(current, status)  # the mode of a link has no effect
            target = os.readlink(current)
            current = Path("/") if os.path.isabs(target) else current.parent
            pending += reversed(_parts(target))
        else:
            _check(current, status)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _check(path: Path, status: os.stat_result) -> None:
    _check_owner(path, status)
    mode = status.st_mode
    if stat.S_ISDIR(mode) and mode & stat.S_ISVTX:
        return  # only the owner of an item in it can replace the item
    if mode & stat.S_IWOTH:
        raise Untrusted(f"everybody may write {path}; run 'chmod go-w {shlex.quote(str(path))}'")
    if mode & stat.S_IWGRP and not _is_private_group(status.st_gid, status.st_uid):
        raise Untrusted(
            f"the group {_group_name(status.st_gid)} may write {path}; run 'chmod go-w {shlex.quote(str(path))}'"
        )


def _check_owner(path: Path, status: os.stat_result) -> None:
    us = os.geteuid()
    if status.st_uid not in (0, us):
        raise Untrusted(
            f"{path} belongs to another user ({_user_name(status.st_uid)}); "
            f"run 'chown -h {shlex.quote(_user_name(us))} {shlex.quote(str(path))}'"
        )


def _is_private_group(gid: int, owner: int) -> bool:
    """Whether the group has no members except us, root and `owner`. A group without a name may have any members."""
    ours = {os.geteuid(), 0, owner}
    try:
        members = grp.getgrgid(gid).gr_mem
        by_name = {pwd.getpwnam(name).pw_uid for name in members}
    except KeyError:
        return False
    by_account = {account.pw_uid for account in pwd.getpwall() if account.pw_gid == gid}
    return by_name | by_account <= ours


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
