"""Find what students handed in, in a folder or archive of a learning platform.

A student is the first folder, or archive, of a path, or what stands before the name of
the exercise in the name of a file. Nothing is unpacked to disk.
"""

import io
import re
import zipfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

LARGEST = 32 * 2 ** 20   # bytes of a file
GRADE_ID = re.compile(rb'"grade_id":\s*"([\w-]+)"')


@dataclass(frozen=True)
class Submission:
    """A file that a student handed in for an exercise, or why it counts for none."""

    student: str
    exercise: str   # "" where no file says which
    name: str
    content: bytes = b""
    problem: str = ""
    note: str = ""


def found(folder, sources, untouched):
    """All submissions, in order; nothing that is in the folder is left out.

    sources: {exercise: names of its cells}. untouched(exercise, name, content) says
    whether nobody has worked on a file; such a one counts only if there is no other.
    """
    files = sorted(walk(folder), key=lambda file: file[0])
    students = names([student_of(parts, sources) for parts, *_ in files])
    works = {}
    for parts, content, when, problem in files:
        student = students[student_of(parts, sources)]
        exercise = "" if problem else exercise_of(parts[-1], content, sources)
        name = "/".join(parts).encode("utf-8", "replace").decode()
        file = (name, content, when, problem)
        works.setdefault((student, exercise), []).append(file)
    submissions = []
    for (student, exercise), files in works.items():
        if exercise:
            worked = [file for file in files if not untouched(exercise, *file[:2])]
            submissions.append(chosen(student, exercise, worked or files))
            continue
        others = any(who == student and what for who, what in works)
        submissions += [
            Submission(student, "", name, problem=problem or "no exercise is in it")
            for name, _, _, problem in files if problem or not others]
    return sorted(submissions,
                  key=lambda work: (work.exercise, work.student, work.name))


def walk(folder):
    """(parts of the path, content, time, problem) of every file, archives opened."""
    folder = Path(folder)
    if folder.is_file():
        yield from opened((), folder.read_bytes())
        return
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if path.is_dir() or skipped(parts):
            continue
        if path.is_symlink():
            yield parts, b"", 0, "it is a link"
        elif path.stat().st_size > LARGEST:
            yield parts, b"", 0, "it is too large"
        else:
            yield from entries(parts, path.read_bytes(), path.stat().st_mtime)


def entries(parts, content, when):
    """A file, or the files of an archive, whose name is then a folder's."""
    if parts[-1].lower().endswith(".zip"):
        yield from opened((*parts[:-1], parts[-1][:-4]), content)
    else:
        yield parts, content, when, ""


def opened(parts, content, depth=3):
    """The files of an archive, of which each may be one again."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except Exception as error:   # a damaged archive raises what it likes
        yield parts or ("archive",), b"", 0, f"an archive that cannot be read: {error}"
        return
    for member in archive.infolist():
        inside = PurePosixPath(member.filename.replace("\\", "/")).parts
        where = (*parts, *(part for part in inside if part not in ("/", "..")))
        if member.is_dir() or where == parts or skipped(where):
            continue
        try:
            if member.file_size > LARGEST or depth == 0:
                raise ValueError("it is too large")
            content = archive.read(member)
            when = datetime(*member.date_time).timestamp()
        except Exception as error:   # as above
            yield where, b"", 0, str(error)
            continue
        if where[-1].lower().endswith(".zip"):
            yield from opened((*where[:-1], where[-1][:-4]), content, depth - 1)
        else:
            yield where, content, when, ""


def skipped(parts):
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


def student_of(parts, sources):
    """The student's name as the path has it."""
    first = parts[0]
    canvas = re.match(r"(.+?)(?:_LATE)?_(\d+)_\d+_", first)
    if canvas:
        return f"{canvas[1]}_{canvas[2]}"
    if len(parts) > 1:
        return re.sub(r"_assignsubmission_\w*$", "", first)
    stem = first.rpartition(".")[0] or first
    for name in sorted(sources, key=len, reverse=True):
        stem = re.sub(rf"[ _.-]*{name}.*$", "", stem, flags=re.I)
    return stem or "unknown"


def names(raw):
    """{name: one that is safe in a path, a table and a page, and nobody else's}."""
    safe = {}
    for name in dict.fromkeys(raw):
        plain = re.sub(r"[^\w .@+-]+", "_", name)[:80]
        plain = re.sub(r"^[\W_]+|[\W_]+$", "", plain)
        wanted, number = plain or "unknown", 1
        while wanted.casefold() in (taken.casefold() for taken in safe.values()):
            number += 1
            wanted = f"{plain or 'unknown'}-{number}"
        safe[name] = wanted
    return safe


def exercise_of(name, content, sources):
    """The exercise that a file is for, by its name, else by its cells; or ""."""
    stem, _, ending = name.lower().rpartition(".")
    if ending not in ("py", "ipynb"):
        return ""
    named = [exercise for exercise in sources if exercise in stem]
    if named:
        return max(named, key=len)
    ids = {match.decode() for match in GRADE_ID.findall(content)}
    best = max(sources, key=lambda exercise: len(ids & sources[exercise]), default="")
    return best if best and len(ids & sources[best]) > 1 else ""


def chosen(student, exercise, files):
    """Of several files for one exercise the latest."""
    name, content, *_ = max(files, key=lambda file: file[2])
    others = [file[0] for file in files if file[0] != name]
    note = f"graded is {name}, the latest; there is also {', '.join(others)}"
    return Submission(student, exercise, name, content, note=note if others else "")
