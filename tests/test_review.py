"""What staff open and fill in: tables in any Excel, marks that are never lost."""

import codecs
import csv
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from nbgrader.api import Gradebook

from conftest import one_line as is_one_line
from hostile import SQUARE, attack
from lab import UserError, grade, tables
from test_grade import toy  # noqa: F401

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ["student", "exercise", "cell", "points", "comment"]


@pytest.fixture
def course(toy, monkeypatch):  # noqa: F811
    """A graded course, without the execution: three students, one written answer."""
    monkeypatch.setattr(grade, "executed", lambda *arguments: None)
    for student in ["Zoë Müller", "ada", "O'Brien, Conor (Jr.)"]:
        toy.hand_in(student, attack(SQUARE).replace("YOUR ANSWER", f"I, {student}"))
    toy.grade()
    return toy


def points(course):
    """{student's name: what a human gave for the written cell}."""
    with Gradebook(f"sqlite:///{course.out / 'gradebook.db'}") as book:
        return {student.last_name: book.find_grade(
            "words", "toy", "toy", student.id).manual_score
            for student in book.students}


HEADER = ["student", "exercise", "cell", "why", "score", "of", "points", "comment"]
ROWS = [["Zoë Müller", "toy", "words", "written: …", "0", "1", "0,5", "Schön, größer"],
        ["ada", "toy", "words", "written", "0", "1", "1", "two\nlines; and more"]]


def saved(rows, encoding="utf-8", delimiter=",", before="", end="\r\n"):
    """A table as a spreadsheet saves it."""
    def quoted(cell):
        return '"' + cell.replace('"', '""') + '"' if set(cell) & set(
            delimiter + '"\n') else cell

    text = end.join(delimiter.join(map(quoted, row)) for row in rows) + end
    return (before + text).encode(encoding, "replace")


@pytest.mark.parametrize("content", [
    saved([HEADER, *ROWS], "utf-8-sig"),
    saved([HEADER, *ROWS], delimiter=";"),
    saved([HEADER, *ROWS], delimiter="\t"),
    saved([HEADER, *ROWS], "utf-8-sig", ";", "sep=;\r\n"),
    saved([HEADER, *ROWS], "cp1252", ";"),
    saved([HEADER, *ROWS], "mac-roman", ";", end="\r"),
    saved([HEADER, *ROWS], "utf-16", "\t"),
    codecs.BOM_UTF16_BE + saved([HEADER, *ROWS], "utf-16-be", "\t"),
    saved([HEADER, *ROWS], "utf-16-le", ";"),
    saved([HEADER, *ROWS], "utf-16-be", ";"),
    saved([[*map(str.upper, HEADER), "", ""], [""] * 10,
           *([*row, "", ""] for row in ROWS), [""] * 10], delimiter=";"),
    saved([["seen", *HEADER[::-1]], *(["x", *row[::-1]] for row in ROWS)]),
], ids=["bom", "semicolon", "tab", "sep", "cp1252", "mac", "utf-16", "utf-16-be",
        "le-no-bom", "be-no-bom", "empty-columns-and-rows", "moved-and-added"])
def test_what_excel_saves_is_understood(tmp_path, content):
    path = tmp_path / "review.csv"
    path.write_bytes(content)
    known = {"Zoë Müller", "ada"}
    rows = tables.read(path, COLUMNS, lambda row: row["student"] in known)
    assert [[row[name] for name in COLUMNS] for _, row in rows] == [
        ["Zoë Müller", "toy", "words", "0,5", "Schön, größer"],
        ["ada", "toy", "words", "1", "two\nlines; and more"]]


@pytest.mark.parametrize("encoding", ["cp1252", "mac-roman"])
@pytest.mark.parametrize("comment", [
    "Nicht schlecht – weiter so… don’t stop", "“x” für 5 €", "Très bien, ça marche"])
def test_what_excel_corrects_stays_as_it_is(tmp_path, comment, encoding):
    path = tmp_path / "review.csv"
    path.write_bytes(saved([HEADER, [*ROWS[1][:-1], comment]], encoding, ";"))
    (_, row), = tables.read(path, COLUMNS, lambda row: row["student"] == "ada")
    assert row["comment"] == comment


@pytest.mark.parametrize("content, why", [
    (b"", "must name the columns"),
    (saved([HEADER[:-1], *(row[:-1] for row in ROWS)]), "must name the columns"),
    (saved(ROWS), "must name the columns"),
    (saved([HEADER, *ROWS], delimiter="|"), "must name the columns"),
    (saved([[*HEADER, "points"], *ROWS]), "a column is there twice"),
    (saved([HEADER, [*ROWS[1][:-1], "good", " but short"]]),
     "line 2: 'but short' is beyond the last column"),
    (saved([HEADER]) + b'ada,"toy"x,words,,,,1,\r\n', "line 2: "),
    (b"\xff\xfe\x00", "in no encoding"),
], ids=["empty", "column", "header", "delimiter", "twice", "beside", "quotes", "bytes"])
def test_what_is_not_understood_is_refused(tmp_path, content, why):
    path = tmp_path / "review.csv"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        tables.read(path, COLUMNS, lambda row: True)
    is_one_line(raised, str(path), why)
    assert path.read_bytes() == content


@pytest.mark.parametrize("cell", [
    "=1+1", "+cmd", "-cmd", "@x", "'=1", "''=1", '"=1', '" =1', "＝1", "＠x", "-5",
    "+2,5", "x;=1", "x; '=1", ";;=1", "a'=b", "O'Brien", "", "- good", "2.5", "x;y"])
def test_no_formula_and_no_change_in_a_round_trip(tmp_path, cell):
    path = tmp_path / "table.csv"
    tables.write(path, ["comment", "student"], [["x", cell]])
    ((_, row),) = tables.read(path, ["student"], lambda row: True)
    assert row["student"] == cell
    text = path.read_bytes().decode("utf-8-sig")
    for delimiter in ",;":   # as one half of the world opens it, and the other
        for cells in csv.reader(text.splitlines(), delimiter=delimiter):
            assert not [one for one in cells if one.strip(' "')[:1] in tuple("=+-@＝＠")
                        and not tables.NUMBER.fullmatch(one)]


def test_names_are_right_in_excel_and_the_former_file_stays(tmp_path):
    path = tmp_path / "grades.csv"
    for number in [1, 1, 2, 3]:
        tables.write(path, ["student"], [[f"Zoë {number}"]])
    assert path.read_bytes().startswith(codecs.BOM_UTF8)
    former = sorted(file.read_bytes()[-3:-2] for file in tmp_path.glob("grades-*.csv"))
    assert former == [b"1", b"2"]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_write_that_fails_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "review.csv"
    path.write_text("mine")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError) as raised:
        tables.write(path, ["a"], [["b"]])
    is_one_line(raised, "review.csv cannot be written: No space left on device")
    assert path.read_text() == "mine"
    assert {file.read_text() for file in tmp_path.iterdir()} == {"mine"}


@pytest.mark.parametrize("text, score", [
    ("2.5", 2.5), ("2,5", 2.5), ("3", 3), (" 1 ", 1), ("+1", 1), ("0,125", 0.125)])
def test_points_as_people_write_them(text, score):
    assert grade.points_in(text, "here") == score


@pytest.mark.parametrize("text", [
    "much", "-1", "50%", "1,000", "1.000,5", "1.125", "1/2", "02. Mai", "2026-05-02",
    "nan", "inf", "1e3", "٣"])
def test_points_that_may_be_another_number_are_refused(text):
    with pytest.raises(UserError, match="^here: "):
        grade.points_in(text, "here")


def test_marks_come_back_from_excel(course):
    review = course.out / "review.csv"
    rows = [HEADER, *ROWS, ["O'Brien, Conor (Jr.)", "toy", "", "", "", "", "", "Hm"],
            ["ada", "toy", "double", "", "", "", "", "=nice()"]]
    review.write_bytes(saved(rows, "cp1252", ";"))
    for _ in range(2):
        assert "1 lines to look at" in course.grade()
        assert points(course) == {"Zoë Müller": 0.5, "ada": 1,
                                  "O'Brien, Conor (Jr.)": None}
        told = {(row["student"], row["cell"]): row["comment"]
                for row in course.table("review")}
        assert told["O'Brien, Conor (Jr.)", ""] == "Hm"
        assert told["Zoë Müller", "words"] == "Schön, größer"
        assert told["ada", "words"] == "two\nlines; and more"
        assert told["ada", "double"] == "'=nice()"
    assert saved(rows, "cp1252", ";") in [
        file.read_bytes() for file in course.out.glob("review-*.csv")]
    (course.handed_in / "ada/toy.py").unlink()   # what was said of others stays
    course.grade()
    assert ["two\nlines; and more", grade.ELSEWHERE] in [
        [row["comment"], row["why"]] for row in course.table("review")]


def test_a_mark_for_nobody_or_twice_is_one_line_and_changes_nothing(course):
    review = course.out / "review.csv"
    for rows, why in [
            (["nobody,toy,words,1,"], "line 2: nobody, toy, words: nobody of this"),
            (["ada,toy,wrds,1,"], "no such cell is graded"),
            (["ada,toy,wrds,,x"], "no such cell is graded"),
            (["ada,,words,1,"], "no such cell is graded"),
            (["Zoë Müller,toy,words,1,", "ada,toy,words,2,"],
             "line 3: ada, toy, words: 2 of 1 points"),
            (["ada,toy,words,1,", "ada,toy,words,0,"], "there are other points for it"),
            (["ada,toy,words,,a", "ada,toy,words,,b"], "there is another comment")]:
        filled = "\n".join([",".join(COLUMNS), *rows]).encode()
        review.write_bytes(filled)
        with pytest.raises(UserError) as raised:
            course.grade()
        is_one_line(raised, why)
        assert review.read_bytes() == filled
        assert set(points(course).values()) == {None}


def test_text_of_a_submission_is_one_short_line(course, monkeypatch):
    monkeypatch.setattr(grade, "judge", lambda *arguments: [
        ("words", "x\n=HYPERLINK(\"http://evil\")\u202e" + "y" * 10 ** 6)])
    course.hand_in("eve", attack(SQUARE))
    course.grade()
    why = {row["student"]: row["why"] for row in course.table("review")}["eve"]
    assert len(why) < 1000 and why.isprintable()
    with (course.out / "review.csv").open(encoding="utf-8-sig") as file:
        assert not [row for row in csv.reader(file) if row[0].startswith("=")]


def test_grades_are_readable_by_their_owner_only(course, monkeypatch):
    for path in grade.GRADES.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    monkeypatch.setattr(sys, "argv", ["grade", str(course.handed_in), "--unsafe"])
    before = os.umask(0o022)
    try:
        course.hand_in("eve", attack(SQUARE))
        grade.main()
    finally:
        os.umask(before)
    assert stat.S_IMODE(grade.GRADES.stat().st_mode) == 0o700
    for path in [course.out / "feedback/eve.html", course.out / "grades.csv",
                 course.out / "autograded/eve"]:
        assert not path.stat().st_mode & 0o077, path


@pytest.mark.parametrize("name", ["HW 1 (10%20)", "50% #1?", "Übung 'a\" & b"])
def test_paths_with_signs_in_them(course, monkeypatch, tmp_path, name):
    monkeypatch.setattr(grade, "GRADES", tmp_path / name / "grades")
    folder = tmp_path / name / name
    folder.mkdir(parents=True)
    course.handed_in.rename(folder / "x")
    course.handed_in, course.out = folder, grade.GRADES / name
    assert "3 submissions, 3 graded now" in course.grade()
    assert "3 submissions, 0 graded now" in course.grade()
    assert (course.out / "gradebook.db").exists()


def test_two_folders_of_one_name_do_not_share_grades(course, tmp_path):
    other = tmp_path / "later" / course.handed_in.name
    other.mkdir(parents=True)
    with pytest.raises(UserError) as raised:
        grade.grade_folder(other, course.args)
    is_one_line(raised, f"has the grades of {course.handed_in}", "rename the folder")


def test_an_older_gradebook_is_opened_unless_its_names_are_others(course):
    (course.out / "folder.txt").unlink()
    assert "0 graded now" in course.grade()
    (course.out / "folder.txt").unlink()
    (course.handed_in / "ada").rename(course.handed_in / "Ada L.")
    with pytest.raises(UserError) as raised:
        course.grade()
    is_one_line(raised, "with other names for ada: move it away")


def test_a_terminal_that_cannot_print_a_name(course):
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.path.insert(0, 'code')\n"
         "from lab import grade\ngrade.grade_folder = lambda *a: '李伟'\n"
         f"sys.argv = ['grade', {str(course.handed_in)!r}, '--unsafe']\ngrade.main()"],
        capture_output=True, text=True, cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0 and r"\u674e\u4f1f" in done.stdout
