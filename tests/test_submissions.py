"""What students hand in, as platforms, people and attackers name and pack it."""

import io
import json
import os
import struct
import tracemalloc
import unicodedata
import zipfile
from pathlib import Path

import pytest

from conftest import one_line as is_one_line
from lab import UserError, archives, limits, submissions

SOURCES = {"convolution": {"setup", "conv2d", "windows"}, "toy": {"setup", "double"},
           "transformer_block": {"setup", "norm"}}
WORK = "x = {}"


@pytest.fixture(scope="module")
def worker():
    with limits.Worker() as worker:
        yield worker


@pytest.fixture
def found(tmp_path, worker):
    """found(files): what is found of {name: content}, or of names with own contents."""
    def find(files, untouched=lambda *file: False, folder=tmp_path / "in"):
        if not isinstance(files, dict):
            files = {name: WORK.format(number) for number, name in enumerate(files)}
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes)
                             else content.encode())
        return submissions.find(folder, SOURCES, untouched, worker)

    return find


def archive(files, compression=zipfile.ZIP_STORED):
    """A zip of {name or ZipInfo: content}."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as packed:
        for name, text in files.items():
            packed.writestr(name, text)
    return content.getvalue()


def students(works):
    return [(work.student, work.exercise) for work in works]


# Whose it is ----------------------------------------------------------------------


@pytest.mark.parametrize("name, student", [
    ("Ada Lovelace_12345_assignsubmission_file_/toy.py", "Ada Lovelace_12345"),
    ("Ada Lovelace_12345_assignsubmission_file/a/b/toy.ipynb", "Ada Lovelace_12345"),
    ("Ada Lovelace_12345_assignsubmission_file_toy.ipynb", "Ada Lovelace_12345"),
    ("Participant_12345_assignsubmission_file_my_toy.py", "Participant_12345"),
    ("lovelaceada_7_99_toy.py", "lovelaceada_7"),
    ("lovelaceada_LATE_7_99_toy-2.py", "lovelaceada_7"),
    ("lovelace-kingada_7_99_toy.zip/toy.py", "lovelace-kingada_7"),
    ("101-2001 - Ada Lovelace - Nov 20, 2026 1030 AM/toy.py", "Ada Lovelace_101"),
    ("101-2001 - Ada Lovelace - Nov 20, 2026 1030 AM - toy.py", "Ada Lovelace_101"),
    ("101-2001 - Ada Lovelace - 20 November, 2026 1030/toy.py", "Ada Lovelace_101"),
    ("Toy_ada1_attempt_2026-11-20-10-30-00_toy.py", "ada1"),
    ("Week 3 Toy_ada_l_attempt_2026-11-20-10-30-00_my_attempt_toy.py", "ada_l"),
    ("Homework_ada1_attempt_2026-11-20-10-30-00_toy.py", "ada1"),
    ("submission_123456789/toy.py", "submission_123456789"),
    ("toy-submissions/toy-ada1/toy.py", "ada1"),
    ("toy-ada1/toy.py", "ada1"),
    ("Ada Lovelace - toy.ipynb", "Ada Lovelace"),
    ("ada/toy.py", "ada"),
    ("ada/work/toy.py", "ada"),
    ("ada_toy.py", "ada"),
    ("toy_ada_lovelace.ipynb", "ada_lovelace"),
    ("ada_lovelace_toy.ipynb", "ada_lovelace"),
    ("2026_11_20_ada_toy.ipynb", "ada"),
    ("ada_2026-11-20_toy.ipynb", "ada"),
    ("toy_20.11.2026_ada.ipynb", "ada"),
    ("ada - Toy (1).ipynb", "ada"),
    ("HW3_toy_ada.ipynb", "ada"),
    ("ada_transformer block_final v2.py", "ada"),
    ("ada_toyota_toy.py", "ada_toyota"),
    ("12345_toy.py", "12345"),
    ("notebook/toy.py", "notebook"),
    ("Zoë Žižek/toy.py", "Zoë Žižek"),
    ("O'Brien, Conor/toy.py", "O'Brien, Conor"),
    ("d'Arc (Jeanne)/toy.py", "d'Arc (Jeanne)"),
    ("李伟_toy.py", "李伟"),
    ("हिन्दी/toy.py", "हिन्दी"),
    ("=cmd()/toy.py", "=cmd()"),
    ("<script>/toy.py", "<script>"),
    ("toy.py", "unknown"),
    ("toy (1).py", "unknown"),
    ("Copy of toy (1).py", "unknown"),
    ("Kopie von toy - Jane.py", "Jane"),
    ("Max Muster - Copy of toy.py", "Max Muster"),
    ("Bob_12_assignsubmission_file_x_99_assignsubmission_file_/toy.py",
     "Bob_12_assignsubmission_file_x_99"),
])
def test_a_name_says_whose_it_is(found, name, student):
    file, _, inner = name.partition(".zip/")
    files = {f"{file}.zip": archive({inner: "x = 1"})} if inner else [name]
    (work,) = found(files)
    assert work.student == student and work.exercise


@pytest.mark.parametrize("names, wanted", [
    (["toy_jane_doe.ipynb", "toy_max_muster.ipynb", "toy_li_wei.ipynb"],
     ["jane_doe", "li_wei", "max_muster"]),
    (["2026_11_20_jane_toy.ipynb", "2026_11_21_max_toy.ipynb"], ["jane", "max"]),
    (["toy_2026_11_20_jane.py", "toy_2026_11_20_max.py"], ["jane", "max"]),
    (["Toy_jdoe_attempt_2026-11-20-10-30-00_toy.py",
      "Toy_mmust_attempt_2026-11-20-10-30-00_toy.py"], ["jdoe", "mmust"]),
    (["Toy_j_doe_attempt_2026-11-20-10-30-00_toy.py",
      "Toy_m_doe_attempt_2026-11-20-10-30-00_toy.py"], ["j_doe", "m_doe"]),
    (["team 3 toy.py", "team 5 toy.py"], ["team 3", "team 5"]),
    (["doejane_7_99_toy.py", "doejane_8_99_toy.py"], ["doejane_7", "doejane_8"]),
    (["101-20 - Jane - Nov 20, 2026 1030 AM/toy.py",
      "102-20 - Jane - Nov 20, 2026 1030 AM/toy.py"], ["Jane_101", "Jane_102"]),
    (["Jane/toy.py", "jane/toy.py"], ["Jane", "jane"]),
    (["toy/jane_toy.py", "toy/max_toy.py"], ["jane", "max"]),
    (["CS101/jane_toy.py", "CS101/max_toy.py"], ["jane", "max"]),
    (["CS101/Week 1/Jane/toy.py", "CS101/Week 1/Max/toy.py"], ["Jane", "Max"]),
    (["CS101/Jane_1_assignsubmission_file_/toy.py", "CS101/roster.csv",
      "CS101/Max_2_assignsubmission_file_/toy.py"], ["Jane_1", "Max_2"]),
    (["Week 1/Jane_1_assignsubmission_file_/toy.py"], ["Jane_1"]),
    (["a?b/toy.py", "a:b/toy.py", "A_B/toy.py", "(a b)/toy.py"],
     ["(a b)", "A_B", "a:b", "a?b"]),
])
def test_two_students_never_become_one(found, names, wanted):
    assert sorted({work.student for work in found(names) if work.exercise}) == wanted


@pytest.mark.parametrize("earlier, later, student", [
    ("101-2001 - Jane Doe - Nov 20, 2026 1030 AM/toy.py",
     "101-2001 - Jane Doe - Nov 20, 2026 930 PM/toy.py", "Jane Doe_101"),
    ("Toy_jdoe_attempt_2026-11-20-10-30-00_toy.py",
     "Toy_jdoe_attempt_2026-11-21-09-30-00_toy.py", "jdoe"),
    ("doejane_7_99_toy.py", "doejane_LATE_7_100_toy-1.py", "doejane_7"),
    ("2026_11_21_jane_toy.py", "2026_11_20_jane_toy.py", "jane"),
    ("jane_toy.py", "jane_toy (1).py", "jane"),
    ("Jane_1_assignsubmission_file_/toy.py", "Jane_1_assignsubmission_file_toy.py",
     "Jane_1"),
])
def test_attempts_are_of_one_student_and_the_latest_counts(found, earlier, later,
                                                           student, tmp_path):
    by_number = "attempt" in later or "doejane" in later or "AM" in earlier
    if "2026_11_21_jane" in earlier:   # its own date, whatever that of the file is
        earlier, later, by_number = later, earlier, True
    found([earlier, later])
    for name, when in [(earlier, 1.7e9), (later, 1.6e9 if by_number else 1.75e9)]:
        os.utime(tmp_path / "in" / name, (when, when))
    (work,) = found({})
    assert (work.student, work.name) == (student, later)
    assert work.note == f"graded is {later}, the latest; there is also {earlier}"


@pytest.mark.parametrize("names", [
    ["group_toy_jane.py", "group_toy_max.py"],
    ["anna_blatt_toy.py", "anna_toy.py"],
    ["jane/toy.py", "jane_toy.py"],
    ["toy.py", "toy (1).py"],
    ["toy.py", "convolution.py"],
    ["homework/toy.py", "homework/toy (1).py"],
])
def test_where_it_is_not_clear_whose_it_is_staff_decide(found, names):
    with pytest.raises(UserError) as raised:
        found(names)
    is_one_line(raised, "whose work is this?", *names, "Rename them")
    if "convolution.py" not in names:
        assert found(dict.fromkeys(names, "x = 1"))   # one work, in two places


def test_a_folder_with_several_students_is_no_student(found):
    with pytest.raises(UserError) as raised:
        found(["CS101/Jane_1_assignsubmission_file_/toy.py", "solution/toy.py",
               "CS101/Max_2_assignsubmission_file_/toy.py"])
    is_one_line(raised, "CS101 holds the submissions of several students")


def test_what_platforms_and_systems_add_is_nobodys(found):
    works = found({
        "Jane_1_assignsubmission_file_/toy.py": "x", "index.html": "", ".DS_Store": "",
        "Jane_1_assignsubmission_onlinetext_/onlinetext.html": "", "Thumbs.db": "",
        "submission_metadata.yml": "", "Jane_1_assignsubmission_file_/~$toy.py": "",
        "__MACOSX/Jane_1_assignsubmission_file_/._toy.py": "",
        "Jane_1_assignsubmission_file_/.ipynb_checkpoints/toy-checkpoint.ipynb": ""})
    assert students(works) == [("Jane_1", "toy")]


def test_unpacked_twice_is_the_same_once_more(found):
    files = {"Jane_1_assignsubmission_file_/toy.py": "x = 1",
             "Max_2_assignsubmission_file_/toy.py": "x = 2"}
    works = found({"CS101-1.zip": archive(files)}
                  | {f"CS101-1/{name}": text for name, text in files.items()})
    assert students(works) == [("Jane_1", "toy"), ("Max_2", "toy")]


def test_an_archive_with_a_folder_on_top(found, tmp_path, worker):
    files = {"submissions/Jane_1_assignsubmission_file_/toy.py": "x = 1",
             "submissions/Max_2_assignsubmission_file_/toy.py": "x = 2"}
    whole = tmp_path / "export.zip"
    whole.write_bytes(archive(files))
    for place in [whole, tmp_path]:   # by itself, or alone in a folder
        works = submissions.find(place, SOURCES, lambda *file: False, worker)
        assert students(works) == [("Jane_1", "toy"), ("Max_2", "toy")]
    whole.write_bytes(archive({"toy.py": "x"}))
    named = whole.rename(tmp_path / "jane_doe.zip")
    works = submissions.find(named, SOURCES, lambda *file: False, worker)
    assert students(works) == [("jane_doe", "toy")]


@pytest.mark.parametrize("name", ["Zoë Müller", "李伟", "Łukasz", "Anaïs"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_keep_their_letters(found, tmp_path, worker, name, form):
    packed = archive({f"{unicodedata.normalize(form, name)}/toy.py": "x = 1",
                      f"{name}/convolution.py": "x = 2"})
    # As macOS writes it: UTF-8, and not marked so.
    entry = zipfile.ZipFile(io.BytesIO(packed)).infolist()[0]
    assert entry.flag_bits & 0x800
    packed = packed.replace(struct.pack("<HH", 20, 0x800), struct.pack("<HH", 20, 0))
    (tmp_path / "all.zip").write_bytes(packed)
    works = submissions.find(tmp_path / "all.zip", SOURCES, lambda *file: False,
                              worker)
    assert students(works) == [(name, "convolution"), (name, "toy")]


def test_a_name_that_is_no_utf8_is_one_of_dos(found, tmp_path, worker):
    packed = archive({"Zxe/toy.py": "x", "b/toy.py": "y"}).replace(b"Zxe", b"Z\x89e")
    (tmp_path / "all.zip").write_bytes(packed)
    works = submissions.find(tmp_path / "all.zip", SOURCES, lambda *file: False,
                              worker)
    assert students(works) == [("Zëe", "toy"), ("b", "toy")]


def test_names_hide_nothing(found):
    works = found(["a\x1b[31m\nb/toy.py", "c\u202ed/toy.py", "e" * 200 + "/toy.py"])
    assert sorted(work.student for work in works) == [
        "a\ufffd[31m b", "c\ufffdd", "e" * (submissions.NAME - 1) + "…"]
    assert all(work.name.isprintable() for work in works)


def test_names_of_paths_are_safe_and_nobody_elses():
    names = ["a/b", "a:b", "A_B", "Zoë", "zoë", "con", "aux.x", "..", "x.", "李伟"]
    safe = submissions.safe_names(set(names), {"old/one": "old_one"})
    assert safe["old/one"] == "old_one" and safe["李伟"] == "李伟"
    values = [safe[name] for name in names]
    assert len({value.casefold() for value in values}) == len(names)
    assert not [value for value in values if not value[-1].isalnum()
                or set(value) & set('/\\:*?"<>|') or value.lower() in ("con", "aux.x")]
    # Who comes later takes nobody's name.
    assert submissions.safe_names({"ada", "Ada"}, {"ada": "ada"})["ada"] == "ada"


# Which exercise, which file --------------------------------------------------------


def test_the_exercise_is_known_by_name_or_cells(found):
    def cells(*names):
        return "".join(f'# %% nbgrader={{"grade_id": "{name}"}}\nx = 1\n'
                       for name in names)

    notebook = {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [
        {"cell_type": "code", "source": "x", "outputs": [], "execution_count": None,
         "metadata": {"nbgrader": {"grade_id": name}}} for name in ["setup", "double"]]}
    works = found({
        "a/Final_CONVOLUTION.py": "", "d/notes.pdf": "", "e/homework.py": "x = 1",
        "b/homework.py": cells("conv2d", "windows"),
        "c/homework.ipynb": json.dumps(notebook), "f/toy.py": "",
        "f/lab/checks.py": "", "g/setup.py": cells("setup"),
        "h/tolstoy.py": cells("conv2d", "windows")})
    assert students(works) == [
        ("d", ""), ("e", ""), ("g", ""), ("a", "convolution"), ("b", "convolution"),
        ("h", "convolution"), ("c", "toy"), ("f", "toy")]
    assert works[0].problem == "no exercise is in it"


def test_of_two_files_the_one_that_was_worked_on_counts(found, tmp_path):
    def untouched(exercise, cells):
        return [cell.source for cell in cells] == ["given"]

    works = found({"a/toy.py": "mine", "a/toy.ipynb": "{broken", "b/toy.py": "given",
                   "a/more/toy.py": "given", "c/new/toy.py": "new",
                   "c/old/toy.py": "old"}, untouched)
    assert [work.name for work in works][:2] == ["a/toy.py", "b/toy.py"]
    for when, latest in [(1.6e9, "new"), (9e9, "new"), (1.8e9, "old")]:
        os.utime(tmp_path / "in/c/old/toy.py", (when, when))   # 9e9: in the year 2255
        os.utime(tmp_path / "in/c/new/toy.py", (1.7e9, 1.7e9))
        if when == 1.8e9:
            os.utime(tmp_path / "in/c/new/toy.py", (0, 0))
        last = found({}, untouched)[-1]
        assert last.name == f"c/{latest}/toy.py"


# Archives --------------------------------------------------------------------------


def test_archives_are_read_and_never_unpacked(found, tmp_path):
    inner = archive({"work/toy.py": "1", "../../../escape/convolution.py": "2",
                     "__MACOSX/._toy.py": "3", ".ipynb_checkpoints/toy.ipynb": "4",
                     "C:\\x\\y\\transformer_block.py": "5"})
    files = {"ada.zip": inner, "eve/all.zip": archive({"more.zip": inner}),
             "bad.zip": b"PK no zip"}
    works = found(files)
    assert sorted(students(works)) == sorted([
        (who, what) for who in ("ada", "eve") for what in SOURCES] + [("bad", "")])
    assert works[0].problem.startswith("it is a damaged or incomplete zip archive")
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "ada.zip", "all.zip", "bad.zip"]


def marked(content, offset, value):
    """A zip whose only entry has another number in both of its headers."""
    for start, at in [(b"PK\x03\x04", offset), (b"PK\x01\x02", offset + 2)]:
        place = content.index(start) + at
        content = content[:place] + struct.pack("<H", value) + content[place + 2:]
    return content


def link():
    entry = zipfile.ZipInfo("toy.py")
    entry.external_attr = 0o120777 << 16
    return archive({entry: "/etc/passwd"})


BOMB = bytes(archives.LARGEST + 1)
MEBIBYTES = archives.TOTAL // 2 ** 20 + 1
HOSTILE = {
    "large": (archive({"toy.py": BOMB}, zipfile.ZIP_DEFLATED), "more than 32 MiB"),
    "bzip2": (archive({"toy.py": BOMB}, zipfile.ZIP_BZIP2), "compression is not read"),
    "lzma": (archive({"toy.py": BOMB}, zipfile.ZIP_LZMA), "compression is not read"),
    "sum": (archive({f"{i}.py": bytes(2 ** 20) for i in range(MEBIBYTES)},
                    zipfile.ZIP_DEFLATED), "more than 64 MiB or 200"),
    "in_zips": (archive({f"{i}.zip": archive({f"{j}.py": bytes(2 ** 20)
                                              for j in range(9)}, zipfile.ZIP_DEFLATED)
                         for i in range(9)}), "more than 64 MiB or 200"),
    "many": (archive({f"{i}.py": "" for i in range(300)}), "more than 64 MiB or 200"),
    "nested": (archive({"b.zip": archive({"c.zip": archive({"toy.py": ""})})}),
               "archive in an archive in an archive"),
    "encrypted": (marked(archive({"toy.py": "x"}), 6, 1), "it is encrypted"),
    "method": (marked(archive({"toy.py": "x"}), 8, 99), "compression is not read"),
    "truncated": (archive({"toy.py": "x" * 999})[:500], "damaged or incomplete"),
    "link": (link(), "it is a link"),
    "html": (b"<html>", "no zip archive, whatever its name says"),
    "nothing": (b"", "no zip archive, whatever its name says"),
    "rar_as_zip": (b"Rar!\x1a\x07\x01\x00 and so on", "it is a RAR archive"),
    "gzip_as_zip": (b"\x1f\x8b\x08\x00", "it is a gzip archive"),
    "long_name": (archive({"x" * 60000 + ".py": "x"}), "its name is too long"),
}


def test_a_hostile_archive_costs_only_its_student(found):
    files = {f"{name}.zip": content for name, (content, _) in HOSTILE.items()}
    files |= {"work.rar": b"", "work.7z": b"", "jane.tar.gz": b"\x1f\x8b"}
    files["lies.zip"] = archive({"toy.py": "x = 1"}).replace(
        struct.pack("<II", 5, 5), struct.pack("<II", 2 ** 31, 2 ** 31))
    tracemalloc.start()
    works = found(files | {"ada.zip": archive({"toy.py": "x = 1"})})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    said = {}
    for work in works:
        said[work.student] = said.get(work.student, "") + work.problem
    for name, (_, why) in HOSTILE.items():
        assert why in said[name], (name, said[name])
    assert "unpack it into a folder of its name, or ask for a .zip" in said["jane"]
    assert ("ada", "toy") in students(works) and said["ada"] == ""
    assert len(works) < 60 and peak < 200 * 2 ** 20


def test_members_that_cannot_be_read_leave_the_others(found):
    damaged = archive({"toy.py": "x = 1" * 99, "convolution.py": "y = 1"}).replace(
        b"x = 1x = 1", b"x = 2x = 1")
    works = found({"ada.zip": damaged, "b.zip": archive({"toy.py": BOMB, "x.py": "",
                                                         "convolution.py": "x = 1"},
                                                        zipfile.ZIP_DEFLATED)})
    assert students(works) == [("ada", ""), ("b", ""), ("ada", "convolution"),
                               ("b", "convolution")]
    assert "it is damaged (Bad CRC-32" in works[0].problem


@pytest.mark.parametrize("date", [0, 0xFFFF, 0x0000 | 13 << 5 | 1, 127 << 9 | 33])
def test_a_date_that_is_none_costs_nothing(found, date):
    packed = marked(archive({"toy.py": "x = 1"}), 12, date)
    works = found({"ada/a.zip": packed, "ada/b/toy.py": "y = 1", "b.zip": packed})
    assert [work.name for work in works] == ["ada/b/toy.py", "b.zip/toy.py"]


def test_of_one_name_twice_in_an_archive_the_last_counts(found):
    with pytest.warns(UserWarning, match="Duplicate name"):
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as packed:
            for text in ["first", "last"]:
                packed.writestr("toy.py", text)
    (work,) = found({"ada.zip": content.getvalue()})
    assert work.cells[0].source == "last"


def test_what_is_no_ordinary_file_costs_nothing_else(found, tmp_path):
    found({"ada/toy.py": "x = 1", "eve/x": "", "max/x": "", "zoe/toy.py": "x"})
    folder = tmp_path / "in"
    (folder / "eve/toy.py").symlink_to("/etc/passwd")
    (folder / "eve/etc").symlink_to("/etc")
    os.mkfifo(folder / "max/toy.py")
    (folder / os.fsdecode(b"Z\xfc")).mkdir()
    (folder / os.fsdecode(b"Z\xfc") / "toy.py").write_text("x = 1")
    (folder / "zoe/toy.py").chmod(0)
    works = found({})
    told = {(work.student, work.problem) for work in works}
    assert {("eve", "it is a link"), ("max", "it is not an ordinary file")} <= told
    assert {("ada", "toy"), (r"Z\xfc", "toy")} <= set(students(works))
    if os.geteuid():
        assert ("zoe", "it cannot be read: Permission denied") in told


def test_a_folder_that_was_packed_with_its_libraries(found):
    libraries = {f"venv/lib/python/site-packages/p/{i}.py": "" for i in range(500)}
    works = found({"ada.zip": archive(libraries | {"work/toy.py": "x = 1"}),
                   **{f"eve/{name}": text for name, text in libraries.items()},
                   "eve/toy.py": "x = 1"})
    assert students(works) == [("ada", ""), ("eve", ""), ("ada", "toy"), ("eve", "toy")]
    assert all("the others were not looked at" in work.problem for work in works[:2])


def test_what_is_no_archive_is_one_line(tmp_path, worker):
    path = tmp_path / "export.rar"
    path.write_bytes(b"Rar!\x1a\x07\x00")
    (work,) = submissions.find(path, SOURCES, lambda *file: False, worker)
    assert work.problem.startswith("it is a RAR archive, which is not read")


# A process with limits -----------------------------------------------------------


def spin():
    while True:
        pass


def take_memory():
    return [bytearray(2 ** 20) for _ in range(2 * limits.MEMORY >> 20)]


@pytest.mark.parametrize("function", [spin, take_memory, os.abort, json.loads])
def test_what_fails_in_a_worker_costs_one_call(monkeypatch, function):
    monkeypatch.setattr(limits, "SECONDS", 0.5)
    with limits.Worker() as worker:
        with pytest.raises(UserError) as raised:
            worker.call(function, *(["{"] if function is json.loads else []))
        is_one_line(raised, "it")
        assert worker.call(len, "three") == 5


def test_no_process_stays():
    with limits.Worker() as worker:
        assert worker.call(abs, -1) == 1
        process = worker.process
    assert not Path(f"/proc/{process.pid}").exists()
