"""Where the files of real data sets are: $LAB_DATA, --data-dir, or a download."""

import errno
import hashlib
import os
import socket
import sys
import tempfile
from functools import cache
from pathlib import Path

from lab import UserError, runs

# Of what a download can raise: the folder's fault, not the network's.
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES,
           errno.ENAMETOOLONG}


def folders(data_dir):
    """The folders to search, in this order."""
    lab_data = os.environ.get("LAB_DATA")
    return [Path(lab_data), data_dir] if lab_data else [data_dir]


def first(data_dir, files):
    """The first folder with all these files, or None."""
    return next((place for place in folders(data_dir) if has(place, files)), None)


def has(place, files):
    return all((place / file).is_file() for file in files)


def verify(file, digest, algorithm="md5"):
    """Raise UserError unless a file's hexadecimal digest begins with this one."""
    try:
        with open(file, "rb") as content:
            found = hashlib.file_digest(content, algorithm).hexdigest()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from None
    if not found.startswith(digest):
        raise UserError(f"{file} is corrupt (its {algorithm.upper()} is not {digest}): "
                        "replace it with the original, or delete it to fetch it again")


@cache
def say_once(line):
    """A line on stderr about a data set, however often it is read."""
    print(line, file=sys.stderr)


def make_writable(data_dir):
    """Make --data-dir, unless it is where nothing may be written."""
    lab_data = os.environ.get("LAB_DATA")
    if lab_data and data_dir.resolve().is_relative_to(Path(lab_data).resolve()):
        raise UserError(f"--data-dir {data_dir} is in $LAB_DATA, which is never "
                        "written: name another folder")
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"--data-dir {data_dir} cannot be made: {error.strerror}") from None


def fetch(download, name, data_dir, needed, archive=None):
    """Get a data set by download(folder); -> data_dir, which has it then.

    download works in a temporary folder, so that data_dir never has half a set.
    needed: the set's files, for the message; archive: where a packed one is, if no
    network is needed.
    """
    make_writable(data_dir)
    patience = socket.getdefaulttimeout()
    socket.setdefaulttimeout(10)
    try:
        with tempfile.TemporaryDirectory(dir=data_dir, prefix=".fetching-") as folder:
            if not archive:
                print(f"downloading {name} into {data_dir}", file=sys.stderr)
            download(Path(folder))
            for file in filter(Path.is_file, list(Path(folder).rglob("*"))):
                target = data_dir / file.relative_to(folder)
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(file, target)
    except Exception as error:  # what a network can raise is endless
        if getattr(error, "errno", None) in NO_ROOM:
            raise UserError(f"{name} cannot be written to {data_dir}: "
                            f"{error.strerror}") from None
        reason = (str(error).strip() or repr(error)).splitlines()[-1]
        looked = ", ".join(_described(place, needed) for place in folders(data_dir))
        command = (runs.current().command if runs.has_begun()
                   else f"python {sys.argv[0]}")
        raise UserError(f"{name} is not in {looked} and cannot be fetched ({reason}); "
                        f"with a network: {command}") from None
    finally:
        socket.setdefaulttimeout(patience)
    return data_dir


def _described(place, needed):
    """A folder that was searched, and the files missing there if it has some."""
    lacking = [Path(file).name for file in needed if not (place / file).is_file()]
    folder = (place / needed[0]).parent
    return f"{folder} (no {', '.join(lacking)})" if folder.is_dir() else f"{place}"
