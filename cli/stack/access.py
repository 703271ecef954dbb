"""Let PostgreSQL's user through to its files.

PostgreSQL refuses to run as root, so where root starts the stack, it runs as ``nobody``. A clone in
``/root`` lies below a folder that only root may enter. One POSIX access entry for that one user opens
the way; who else may enter stays as it was.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import struct
import sys
from pathlib import Path

ACL = "system.posix_acl_access"
_VERSION = struct.pack("<I", 2)
_ENTRY = struct.Struct("<HHI")  # tag, permissions, id (acl(5), linux/posix_acl_xattr.h)
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NO_ID = 0xFFFFFFFF
_SEARCH = 1


def open_the_way(path: Path, user: str) -> None:
    """Let ``user`` pass through every folder above ``path``. Does nothing unless we are root."""
    if os.geteuid() != 0:
        return
    uid = pwd.getpwnam(user).pw_uid
    for folder in path.resolve().parents:
        if not folder.stat().st_mode & stat.S_IXOTH:
            _grant_search(folder, uid)


def open_tree(root: Path) -> None:
    """Let everybody read what is installed below ``root``; a strict umask may have closed it."""
    if os.geteuid() != 0 or root.stat().st_mode & stat.S_IROTH:
        return
    for path in (root, *root.rglob("*")):
        if path.is_symlink():
            continue
        mode = path.stat().st_mode
        path.chmod(mode | 0o444 | (0o111 if mode & stat.S_IXUSR else 0))


def _grant_search(folder: Path, uid: int) -> None:
    entries = _entries(folder)
    if entries.get((_USER, uid), 0) & entries.get((_MASK, _NO_ID), 0) & _SEARCH:
        return  # the mask says which of the entries' permissions count; chmod changes it
    print(f"PostgreSQL runs as uid {uid}, who may now pass through {folder}.", file=sys.stderr)
    entries[_USER, uid] = entries.get((_USER, uid), 0) | _SEARCH
    entries[_MASK, _NO_ID] = entries.get((_MASK, _NO_ID), entries[_GROUP_OBJ, _NO_ID]) | _SEARCH
    packed = [_ENTRY.pack(tag, permissions, who) for (tag, who), permissions in sorted(entries.items())]
    try:
        os.setxattr(folder, ACL, _VERSION + b"".join(packed))
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        folder.chmod(folder.stat().st_mode | stat.S_IXOTH)  # a file system without access lists


def _entries(folder: Path) -> dict[tuple[int, int], int]:
    try:
        raw = os.getxattr(folder, ACL)[len(_VERSION) :]
    except OSError:
        mode = folder.stat().st_mode
        return {
            (_USER_OBJ, _NO_ID): mode >> 6 & 7,
            (_GROUP_OBJ, _NO_ID): mode >> 3 & 7,
            (_OTHER, _NO_ID): mode & 7,
        }
    return {(tag, who): permissions for tag, permissions, who in _ENTRY.iter_unpack(raw)}
