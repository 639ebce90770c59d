"""Read folders and zip archives that may be damaged, hostile or of another kind.

Nothing is unpacked to disk, no header is believed, and only what can be somebody's work
(.py, .ipynb) is unpacked at all.
"""

import io
import os
import re
import stat
import unicodedata
import zipfile
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from lab import UserError

LARGEST = 32 * 2 ** 20   # bytes of one file
TOTAL = 64 * 2 ** 20     # bytes of all files of a submission together
FILES = 200              # of a submission
NAMES = 100_000          # of files in an archive or folder, read or not
LONGEST = 256            # characters of a part of a name; no disk has more
DEPTH = 2                # archives in archives of a submission
MAGIC = [   # offset, first bytes, kind of archive
    (0, b"PK\x03\x04", "zip"), (0, b"PK\x05\x06", "zip"), (0, b"Rar!\x1a\x07", "RAR"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"), (0, b"\x1f\x8b", "gzip"), (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\x00", "xz"), (0, b"\x28\xb5\x2f\xfd", "Zstandard"),
    (257, b"ustar", "tar")]
ENDINGS = {"zip": "zip", "rar": "RAR", "7z": "7z", "tar": "tar", "gz": "gzip",
           "tgz": "gzip", "bz2": "bzip2", "xz": "xz", "zst": "Zstandard"}
JUNK = re.compile(r"\.|__MACOSX$|~\$|(thumbs\.db|desktop\.ini|icon\r)$|"
                  r".*-checkpoint\.(py|ipynb)$", re.I)
UNPACK = "unpack it into a folder of its name, or ask for a .zip"


@dataclass(frozen=True)
class File:
    """A file by the parts of its path; an archive is a folder in it."""

    parts: tuple
    when: float = 0.0      # 0 where that is not known
    content: bytes = b""   # only of what was asked for
    problem: str = ""
    place: object = None   # its path on disk, or its index in an archive


def kind_of(name, content):
    """Which archive it is, "" if none: by its first bytes, else by its name."""
    for offset, magic, kind in MAGIC:
        if content.startswith(magic, offset):
            return kind
    return ENDINGS.get(name.lower().rpartition(".")[2], "")


def is_work(name):
    return name.lower().endswith((".py", ".ipynb"))


def is_archive(name):
    return name.lower().rpartition(".")[2] in ENDINGS


def decoded(name):
    """A file's name on disk as text; bytes that are none stay visible and distinct."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return unicodedata.normalize("NFC", text)


# Folders ------------------------------------------------------------------------


def in_folder(folder):
    """The files of a folder, unread, in order."""
    files, waiting = [], [(Path(folder), ())]
    while waiting:
        place, parts = waiting.pop()
        try:
            entries = sorted(os.scandir(place), key=lambda entry: entry.name)
        except OSError as error:
            files.append(File(parts, problem=unreadable(error)))
            continue
        for entry in entries:
            if JUNK.match(entry.name):
                continue
            where, path = (*parts, decoded(entry.name)), Path(entry.path)
            if entry.is_dir(follow_symlinks=False):
                waiting.append((path, where))
            elif entry.is_symlink():
                files.append(File(where, problem="it is a link"))
            elif not entry.is_file():
                files.append(File(where, problem="it is not an ordinary file"))
            else:
                when = plausible(entry.stat().st_mtime)
                files.append(File(where, when, place=path))
        if len(files) > NAMES:
            raise UserError(f"{folder} has more than {NAMES:,} files: grade a folder "
                            "that holds only submissions")
    return sorted(files, key=lambda file: file.parts)


def read(path):
    """The bytes of a file; UserError where that is impossible or too much."""
    try:
        with open(path, "rb") as file:
            return within(file.read(LARGEST + 1))
    except OSError as error:
        raise UserError(unreadable(error)) from None


def unreadable(error):
    return f"it cannot be read: {error.strerror or type(error).__name__}"


def within(content):
    if len(content) > LARGEST:
        raise UserError(f"it is too large: more than {LARGEST >> 20} MiB")
    return content


def plausible(when):
    """A time, 0 if it is none: before 1981 (as of empty headers) or in the future."""
    return when if 365 * 86400 * 11 < when < datetime.now().timestamp() + 86400 else 0.0


# Archives -----------------------------------------------------------------------


@lru_cache(maxsize=1)   # the members of one archive are read one after another
def in_archive(path):
    """An open archive and its files, unread; called in a process with limits."""
    with open(path, "rb") as file:
        start = file.read(512)
    return opened(path, Path(path).name, start)


def listing(path):
    """The files of an archive on disk, unread, in order."""
    return in_archive(path)[1]


def member(path, index):
    """The bytes of a file in an archive on disk."""
    archive, _ = in_archive(path)
    return within(content_of(archive, index, LARGEST))


def unpacked(name, content, used=(0, 0)):
    """Works in an archive of a submission, read, and problems.

    used: how many bytes and files this submission has had before.
    """
    files, budget = [], list(used)
    try:
        unpack((), name, content, files, budget, DEPTH)
    except UserError as error:
        files.append(File((), problem=str(error)))
    return files, tuple(budget)


def unpack(parts, name, content, files, budget, depth):
    if not depth:
        raise UserError("it is an archive in an archive in an archive: " + UNPACK)
    archive, members = opened(io.BytesIO(content), name, content[:512])
    # What is on top comes first: deep down are libraries that were packed as well.
    for file in sorted(members, key=lambda file: len(file.parts)):
        where, last = (*parts, *file.parts), file.parts[-1]
        inner = is_archive(last)
        if file.problem or not (inner or is_work(last)):
            files.append(File(where, file.when, problem=file.problem))
            continue
        try:
            found = content_of(archive, file.place, TOTAL - budget[0])
            budget[:] = budget[0] + len(found), budget[1] + 1
            check_budget(budget)
            if inner:
                unpack(where, last, within(found), files, budget, depth - 1)
            else:
                files.append(File(where, file.when, within(found)))
        except OverBudget:
            raise
        except UserError as error:
            files.append(File(where, problem=str(error)))


class OverBudget(UserError):
    """A submission unpacks to more than it may."""


def check_budget(used):
    """OverBudget where these bytes and files are more than a submission may have."""
    if used[0] > TOTAL or used[1] > FILES:
        raise OverBudget(f"it holds more than {TOTAL >> 20} MiB or {FILES} notebooks "
                         "and scripts: the others were not looked at")


def opened(source, name, start):
    """(an open zip archive, its files); UserError where it is none."""
    kind = kind_of(name, start)
    if kind and kind != "zip":
        raise UserError(f"it is a {kind} archive, which is not read: {UNPACK}")
    try:
        archive = zipfile.ZipFile(source)
        members = archive.infolist()
    except Exception as error:   # a damaged archive raises what it likes
        what = "a damaged or incomplete zip archive"
        if not start.startswith(b"PK"):
            what = "no zip archive, whatever its name says"
        raise UserError(f"it is {what} ({error}): ask for it again") from None
    if len(members) > NAMES:
        raise UserError(f"it has more than {NAMES:,} files")
    files = []
    for index, member in enumerate(members):
        inside = parts_of(member)
        if member.is_dir() or not inside or any(map(JUNK.match, inside)):
            continue
        files.append(File(inside, date_of(member), problem=trouble(member, inside),
                          place=index))
    return archive, sorted(files, key=lambda file: file.parts)


def parts_of(member):
    """The parts of a member's name, none of which leads out of a folder."""
    name = member.filename
    if not member.flag_bits & 0x800:   # no mark of UTF-8, which macOS leaves out
        raw = member.orig_filename.partition("\0")[0].encode("cp437", "replace")
        try:
            name = raw.decode("utf-8")
        except UnicodeDecodeError:
            name = raw.decode("cp437")
    name = unicodedata.normalize("NFC", name.encode("utf-8", "replace").decode())
    return tuple(part[:LONGEST] for part in name.replace("\\", "/").split("/")
                 if part not in ("", ".", "..") and not re.fullmatch("[A-Za-z]:", part))


def date_of(member):
    try:
        return plausible(datetime(*member.date_time).timestamp())
    except (ValueError, OverflowError):   # such as month 0, which some tools write
        return 0.0


def trouble(member, inside):
    """Why a member is not read, else ""."""
    if member.flag_bits & 1:
        return "it is encrypted: ask for it without a password"
    if max(map(len, inside)) == LONGEST or len(inside) > 100:
        return "its name is too long"
    if stat.S_ISLNK(member.external_attr >> 16):
        return "it is a link"
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "its kind of compression is not read: " + UNPACK
    return ""


def content_of(archive, index, left):
    """The bytes of a member, but no more than one above its limit."""
    try:
        with archive.open(archive.infolist()[index]) as file:
            return file.read(min(left, LARGEST) + 1)
    except Exception as error:   # as above
        raise UserError(f"it is damaged ({error})") from None
