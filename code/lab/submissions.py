"""Find what students handed in, in a folder or archive of a learning platform.

Whose a file is, is said by the first part of its path that names anyone, in the
patterns of the platforms or as people name files. Two students never become one: where
different works would be one student's, and no pattern says that they are, staff decide.
"""

import hashlib
import re
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from lab import UserError, archives
from lab.archives import File
from lab.cells import marks
from lab.cells import read as read_cells
from lab.tables import one_line

UNKNOWN = "unknown"
PATIENCE = 60   # seconds for all files of one student
LINES = 10   # about files of one student
NAME = 120   # characters of a student's name
DATE = (r"(?<!\d)(?P<year>(?:19|20)\d\d)[-_. ]?(?P<month>0[1-9]|1[0-2])[-_. ]?"
        r"(?P<day>0[1-9]|[12]\d|3[01])(?:[-_T .]+\d{2}[-_.:h]?\d{2}(?:[-_.:]?\d{2})?)?"
        r"(?!\d)|(?<!\d)\d{1,2}[-_.]\d{1,2}[-_.](?:19|20)\d\d(?!\d)")
# How learning platforms name a student's folder or file. `number` or `when`: of two
# attempts the later one has the larger.
PLATFORMS = [re.compile(pattern, re.I) for pattern in [
    # Moodle: Jane Doe_12345_assignsubmission_file_, with or without folders
    r"(?P<name>.+)_assignsubmission_[a-z]+(_.*)?$",
    # Canvas: doejane_LATE_1234_56789_toy-1.ipynb, doejane_1234_text.html
    r"(?P<name>(?=[\d-]*[^\W\d_])[^\W_][^\W_-]*(?:-[^\W_]+)*)(?:_LATE)?_"
    r"(?!(?:19|20)\d\d_(?:0?[1-9]|1[0-2])_)"
    r"(?P<id>\d+)_(?:(?P<number>\d+)_|(?=(?:text|link)\.))",
    # Brightspace: 101-2001 - Jane Doe - Nov 20, 2026 1030 AM - toy.ipynb
    r"(?P<id>\d+)-\d+ - (?P<name>.+?) - "
    r"(?P<when>(?=[^-]*\b20\d\d\b)[^-]*?\d{3,4}( ?[AP]M)?)(?: - .*)?$",
    # Blackboard: Toy_jdoe_attempt_2026-11-20-10-30-00_toy.ipynb
    r"(?P<titled>.+?)_attempt_(?P<when>20\d\d(?:-\d\d){3,5})(?:[_.].*)?$",
    # Gradescope: submission_123456789
    r"(?P<name>submission_\d+)$",
]]
DATES = ["%b %d, %Y %I%M %p", "%d %B, %Y %I%M %p", "%B %d, %Y %I%M %p",
         "%d %b %Y %H%M", "%d %b, %Y %H%M", "%Y-%m-%d-%H-%M-%S", "%Y-%m-%d-%H-%M",
         "%Y-%m-%d"]
APART = r"[\s_.\-]"
# Words of a file's name that say which work it is, and not whose; with their number.
WORD = (r"(?:submissions?|assignments?|homeworks?|hw|exercises?|exports?|downloads?|"
        r"abgaben?|hausaufgaben?|übung(?:en)?|uebung(?:en)?|blatt|weeks?|woche|parts?|"
        r"work|code|src|notebooks?|files?|solutions?|solved|lösung|loesung|untitled|"
        r"final|version|v|draft|corrected|fixed|latest|late|attempt|"
        rf"(?:copy|copie|copia|kopie)(?:{APART}(?:of|de|von))?)"
        rf"(?:{APART}?\d{{1,2}})?|\(\d{{1,2}}\)")
LEADING = re.compile(rf"(?:{APART}*(?:{WORD})(?={APART}|$))+", re.I)
TRAILING = re.compile(rf"(?:(?:^|{APART}+)(?:{WORD}))+$", re.I)
# The same work again, and not somebody else's.
AGAIN = re.compile(rf"(?:{APART}*(?:final|copy|kopie|v\d+|\(\d{{1,2}}\)))+$", re.I)
FROM_PLATFORMS = re.compile(r"index\.html?$|submission_metadata\.yml$", re.I)


@dataclass(frozen=True)
class Submission:
    """A file that a student handed in for an exercise, or why it counts for none."""

    student: str
    exercise: str   # "" where no file says which
    name: str
    cells: tuple = ()
    digest: str = ""       # of what was handed in
    unreadable: str = ""   # why there are no cells
    problem: str = ""
    note: str = ""
    id: str = ""           # the student's name as folders and the gradebook have it


@dataclass(frozen=True)
class Owner:
    """Whose a file is; `same` is equal for what its names say to be one person's."""

    student: str
    same: tuple
    turn: tuple = ()   # of two attempts the later one has the larger


@dataclass(frozen=True)
class Work:
    """A file that may be a student's work, once it was read."""

    name: str
    owner: Owner
    when: float
    cells: tuple = ()
    digest: str = ""
    unreadable: str = ""
    problem: str = ""

    @property
    def text(self):
        return tuple(text for cell in self.cells if (
            text := cell.source.strip())) or self.digest


def find(folder, sources, untouched, worker):
    """All submissions, in order; nothing that is in the folder is left out.

    sources: {exercise: its marks, as cells.marks}. untouched(exercise, cells) says
    whether nobody has worked on a file; such a one counts only if there is no other.
    worker: a limits.Worker, for all that reads what a student sent.
    """
    works = defaultdict(list)
    taken = defaultdict(float)
    for parts, when, content, problem in files(Path(folder), sources, worker):
        owner = owner_of(parts, sources)
        work = Work(one_line("/".join(parts), 300), owner, when, problem=problem)
        exercise = ""
        if content is not None:
            start = time.monotonic()
            if taken[owner.student] < PATIENCE:
                work = examined(work, parts[-1], content, worker)
                exercise = exercise_of(parts[-1], work.cells, sources)
            else:
                work = replace(work, problem="it was not looked at: other files of "
                               f"this student took {PATIENCE} s to read")
            taken[owner.student] += time.monotonic() - start
        works[owner.student, exercise].append(work)
    submissions, unclear = [], []
    for (student, exercise), handed_in in works.items():
        if not exercise:
            others = any(who == student and what for who, what in works)
            submissions += uncounted(student, handed_in, others)
            continue
        best = candidates(exercise, handed_in, untouched, taken)
        if len({work.owner.same for work in best}) > 1 and (
                len({work.text for work in best}) > 1):
            unclear.append(f"{student}, {exercise}: {listed(best)}")
        submissions.append(chosen(student, exercise, best, handed_in))
    nameless = [work for work in submissions if work.exercise
                and work.student == UNKNOWN]
    if len(nameless) > 1:
        unclear.append(f"{UNKNOWN}: {listed(nameless)}")
    if unclear:
        raise UserError(
            "whose work is this? Different works would be one student's: "
            + "; ".join(unclear[:10]) + ("; …" if unclear[10:] else "")
            + ". Rename them after their students, or move away what does not count, "
            "then grade again")
    return sorted(submissions,
                  key=lambda work: (work.exercise, work.student, work.name))


def uncounted(student, files, others):
    """Lines for files that are nobody's work for an exercise, a few of them.

    others: whether the student has handed in something else that counts.
    """
    told = [Submission(student, "", work.name,
                       problem=work.problem or "no exercise is in it")
            for work in sorted(files, key=lambda work: not work.problem)
            if work.problem or not others]
    if len(told) > LINES:
        rest = f"and {len(told) - LINES} more files that do not count"
        told[LINES:] = [Submission(student, "", "…", problem=rest)]
    return told


def listed(works):
    return ", ".join(work.name for work in works[:LINES]) + (
        ", …" if works[LINES:] else "")


# Files and works -------------------------------------------------------------------


def files(folder, sources, worker):
    """(parts of the path, time, content of a work else None, problem) of every file.

    Archives are opened; leading folders that say nothing are left out. What is read of
    a student is within limits, beginning with what is on top.
    """
    found, read = outer(folder, worker)
    paths = without_shared([file.parts for file in found], sources)
    alone(paths, sources)
    used, over = defaultdict(lambda: (0, 0)), set()
    for file, parts in sorted(zip(found, paths), key=lambda pair: len(pair[1])):
        name, student = file.parts[-1], owner_of(parts, sources).student
        if len(parts) == 1 and FROM_PLATFORMS.match(name):
            continue
        if file.problem or not (archives.is_work(name) or archives.is_archive(name)):
            yield parts, file.when, None, file.problem
            continue
        try:
            if student in over:
                continue
            archives.check_budget(used[student])
            content = read(file)
            if archives.is_work(name):
                size, count = used[student]
                used[student] = size + len(content), count + 1
                yield parts, file.when, content, ""
                continue
            inside, used[student] = worker.call(
                archives.unpacked, name, content, used[student])
        except UserError as error:
            if isinstance(error, archives.OverBudget):
                over.add(student)
            yield parts, file.when, None, str(error)
            continue
        for inner in inside:
            where = (*parts, *inner.parts)
            work = not inner.problem and archives.is_work(where[-1])
            yield where, inner.when, inner.content if work else None, inner.problem


def alone(paths, sources):
    """UserError where a folder that is taken for a student's holds several students'.

    What an archive of a student holds is not asked.
    """
    inside = defaultdict(set)
    for parts in paths:
        if parts and not platform(stem(parts[0]), sources):
            inside[parts[0]] |= {owner.same for part in parts[1:]
                                 if (owner := platform(stem(part), sources))}
    for folder, owners in inside.items():
        if len(owners) > 1 and plain(folder, False, sources):
            raise UserError(f"{one_line(folder, NAME)} holds the submissions of "
                            "several students: grade that folder by itself")


def outer(folder, worker):
    """The files that staff have, unread, and what reads one of them.

    An archive that is all there is, is taken for what it holds.
    """
    path, parts = folder, ()
    if folder.is_dir():
        listed = archives.in_folder(folder)
        if len(listed) != 1 or not archives.is_archive(listed[0].parts[-1]) or (
                listed[0].problem):
            return listed, lambda file: archives.read(file.place)
        path, parts = listed[0].place, listed[0].parts
    try:
        listed = worker.call(archives.listing, path)
    except UserError as error:
        return [File(parts or (folder.name,), problem=str(error))], None
    inside = [replace(file, parts=(path.name, *file.parts)) for file in listed]
    return inside, lambda file: worker.call(archives.member, path, file.place)


def without_shared(paths, sources):
    """Leave out leading folders that all works share, while students' folders remain.

    An archive beside the folder that it was unpacked to, is that folder once more.
    """
    while True:
        works = [parts for parts in paths if parts and (
            archives.is_work(parts[-1]) or archives.is_archive(parts[-1]))]
        inside = [parts[1:] for parts in works if len(parts) > 1]
        shared = {stem(parts[0]) for parts in works}
        if not inside or len(shared) > 1 or platform(*shared, sources) or any(
                archives.is_work(parts[0]) for parts in works if len(parts) == 1):
            return paths
        owners = {named(parts, sources) for parts in inside}
        folders = all(len(parts) > 1 for parts in inside)
        files = len(owners) > 1 and all(
            platform(stem(parts[0]), sources) or named_in(parts[0], sources)
            for parts in inside)
        if None in owners or not (folders or files):
            return paths
        paths = [parts[1:] if parts and {stem(parts[0])} == shared else parts
                 for parts in paths]


def examined(work, name, content, worker):
    """The work with its cells, or with why there are none."""
    hashed = digest(content)
    try:
        return replace(work, digest=hashed,
                       cells=tuple(worker.call(read_cells, name, content)))
    except UserError as error:
        return replace(work, digest=hashed, unreadable=str(error))


def digest(*parts):
    return hashlib.sha256(b"".join(
        hashlib.sha256(part).digest() for part in parts)).hexdigest()


# Whose it is ------------------------------------------------------------------------


def owner_of(parts, sources):
    """Whose a file is; a folder such as "notebook" is a name if there is no other."""
    folder = one_line(parts[-2], NAME) if len(parts) > 1 else UNKNOWN
    return named(parts, sources) or Owner(folder, parts)


def named(parts, sources):
    """The owner by the first part of a path that names anyone, else None."""
    owners = (platform(stem(part), sources)
              or plain(part, index == len(parts), sources)
              for index, part in enumerate(parts, 1))
    return next(filter(None, owners), None)


def platform(name, sources):
    """The owner that a name has by a platform's pattern, else None."""
    for pattern in PLATFORMS:
        match = pattern.match(name)
        if not match:
            continue
        said = match.groupdict()
        student = said.get("name") or user(said["titled"], sources)
        if nobody(student, sources):
            continue
        if said.get("id"):
            student += f"_{said['id']}"
        student = one_line(student, NAME)
        turn = int(said.get("number") or 0) or time_of(said.get("when"))
        # What stands before a Blackboard user may be part of the name.
        same = (pattern.pattern, said.get("titled") or student)
        return Owner(student, same, (turn,) if turn else ())
    return None


def user(titled, sources):
    """The user in Blackboard's EXERCISE_USER, of which either may have a _."""
    words = titled.split("_")
    last = max((index for index, word in enumerate(words[:-1])
                if named_in(word, sources)), default=len(words) - 2)
    return "_".join(words[last + 1:])


def plain(part, is_file, sources):
    """The owner that a name has as people name folders and files, else None."""
    name = stem(part)
    exercise = named_in(name, sources)
    if not exercise and not is_file:
        whole = one_line(name, NAME)
        return None if nobody(whole, sources) else Owner(whole, ("folder", part))
    before, after = name, ""
    if exercise:
        before, after = name[:exercise.start()], name[exercise.end():]
    student = one_line(trimmed(before) or trimmed(after), NAME)
    if not student or re.fullmatch(r"\d{1,2}", student):
        return None
    date = re.search(DATE, name)
    when = date and date["year"] and time_of("-".join(date.group(
        "year", "month", "day")))
    same = ("folder" if part == name and not is_file else "file",
            *(AGAIN.sub("", undated(side)).casefold() for side in (before, after)))
    return Owner(student, same, (when,) if when else ())


def undated(text):
    return re.sub(DATE, " ", text).strip(" \t_.-")


def trimmed(text):
    """A name without dates, and without words at its ends that are nobody's name."""
    text = undated(text)
    text = TRAILING.sub("", text[LEADING.match(text).end():]
                        if LEADING.match(text) else text)
    return text.strip(" \t_.-")


def nobody(name, sources):
    """Whether a name has only words that say which work it is."""
    exercise = named_in(name, sources)
    if exercise:
        name = name[:exercise.start()] + " " + name[exercise.end():]
    return not trimmed(name)


def named_in(name, sources):
    """The match of the longest exercise in a name, as a whole word, or None."""
    for exercise in sorted(sources, key=len, reverse=True):
        words = "[ _-]*".join(map(re.escape, exercise.split("_")))
        match = re.search(rf"(?<![^\W\d_]){words}(?![^\W\d_])", name, re.I)
        if match:
            return match
    return None


def stem(name):
    """A name without the ending of a work or archive."""
    base, _, ending = name.rpartition(".")
    if base and archives.is_archive(name):
        return stem(base)   # .tar.gz
    known = archives.is_work(name) or ending.lower() in ("txt", "html")
    return base if base and known else name


def time_of(text):
    """Seconds of a platform's date, 0 for none that is known."""
    for form in DATES:
        try:
            return archives.plausible(datetime.strptime(text or "", form).timestamp())
        except (ValueError, OverflowError):
            continue
    return 0


RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?$", re.I)


def safe_names(students, known):
    """{student: a name for folders and the gradebook that no other student has}.

    known: {student: name} of those that have one. Upper and lower case are alike, as
    some file systems have it.
    """
    names = dict(known)
    for student in sorted(students - set(names)):
        plain = re.sub(r"[^\w .@+-]+", "_", student)[:80].strip(" ._")
        taken = {name.casefold() for name in names.values()}
        if plain != student or plain.casefold() in taken or RESERVED.match(plain):
            plain += "-" + hashlib.sha256(student.encode()).hexdigest()[:8]
        names[student] = plain.strip("-")
    return names


# Which exercise, which attempt -----------------------------------------------------


def exercise_of(name, cells, sources):
    """The exercise that a file is for, by its cells, else by its name; or ""."""
    base = re.sub("[ -]", "_", stem(name).lower())
    named = max((exercise for exercise in sources if exercise in base), key=len,
                default="")
    found = marks(cells)
    score = {exercise: len(found & sources[exercise]) for exercise in sources}
    best = max(score, key=score.get, default="")
    if best and score[best] > 1 and score[best] > score.get(named, 0):
        return best
    return named


def candidates(exercise, works, untouched, taken):
    """Those among which the latest counts: what was worked on, and can be read.

    taken: the seconds that each student's files have taken; beyond PATIENCE each counts
    as worked on.
    """
    readable = [work for work in works if not work.unreadable]
    if len(readable) == 1:
        return readable
    worked = []
    for work in readable:
        start, student = time.monotonic(), work.owner.student
        if taken[student] > PATIENCE or not untouched(exercise, work.cells):
            worked.append(work)
        taken[student] += time.monotonic() - start
    return worked or [work for work in works if work.unreadable] or works


def chosen(student, exercise, best, works):
    """Of several files for one exercise the latest, by the platform or by its date."""
    _, latest = max(enumerate(best), key=lambda pair: (
        pair[1].owner.turn, pair[1].when, pair[0]))
    others = sorted({work.name for work in works} - {latest.name})
    note = one_line(f"graded is {latest.name}, the latest; there is also "
                    f"{', '.join(others)}", 500)
    return Submission(student, exercise, latest.name, latest.cells, latest.digest,
                      latest.unreadable, note=note if others else "")
