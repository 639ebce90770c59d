"""Tables that people open in Excel, fill in, and save as their Excel does.

Written is UTF-8 with a byte-order mark and commas. There is no `sep=` line: Excel would
no longer look at the mark. Where the list separator is a semicolon, such a file is
opened by Data > From Text/CSV.
"""

import csv
import io
import os
import re
import shutil
import tempfile
import time
import unicodedata
from pathlib import Path

from lab import UserError

# Where a spreadsheet finds a formula: at the start of a cell, or behind a semicolon,
# which starts a cell in half of the world. An apostrophe is put there when a table is
# written and taken off when it is read.
STARTS = r"((?:^|;)\s*)"
FORMULA = r"(?=['\"\s]*[=+\-@\uff1d\uff0b\uff0d\uff20])"
NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?")
DELIMITERS = ",;\t"


def one_line(text, length):
    """A text in one line that shows what it is: no control and no bidi characters."""
    text = unicodedata.normalize("NFC", str(text).encode("utf-8", "replace").decode())
    text = " ".join(text[:4 * length].split())
    text = "".join(
        "\ufffd" if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")
        and char not in "\u200c\u200d" else char for char in text)   # joiners: letters
    return text if len(text) <= length else text[:length - 1] + "…"


# Writing ------------------------------------------------------------------------


def write(path, header, rows):
    """Write a table; what stood there before stays beside it where it differs."""
    text = io.StringIO()
    csv.writer(text).writerows([header, *([guarded(str(cell)) for cell in row]
                                          for row in rows)])
    content = text.getvalue().encode("utf-8-sig")
    try:
        if path.exists() and path.read_bytes() != content:
            keep(path)
        replace(path, content)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}; close it "
                        "elsewhere, or make room, then grade again") from None


def keep(path):
    """Copy a file to a name with its time."""
    stamp, number = time.strftime("%Y-%m-%d-%H%M%S"), 1
    former = path.with_stem(f"{path.stem}-{stamp}")
    while former.exists():
        number += 1
        former = path.with_stem(f"{path.stem}-{stamp}-{number}")
    shutil.copy2(path, former)


def replace(path, content):
    """Write a file as a whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}-",
                                     delete=False) as file:
        try:
            file.write(content)
            file.close()
            os.replace(file.name, path)
        except BaseException:
            file.close()
            Path(file.name).unlink(missing_ok=True)
            raise


def guarded(cell):
    """A cell in which no spreadsheet finds a formula."""
    return cell if NUMBER.fullmatch(cell) else re.sub(STARTS + FORMULA, r"\1'", cell)


def unguarded(cell):
    return re.sub(STARTS + "'" + FORMULA, r"\1", cell)


# Reading ------------------------------------------------------------------------


def read(path, columns, known):
    """[(number of the line, {column: cell})] of a table that somebody filled in.

    Understood as a whole, or UserError in one line. columns: those it must have.
    known(row) says whether a row is about anyone; it decides between encodings.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    best = None
    for text in decodings(content):
        rows = parsed(path, text, columns)
        strange = sum(not known(row) for _, row in rows)
        if best is None or strange < best[0]:
            best = strange, rows
    if best is None:
        raise UserError(f"{path} is in no encoding that is known here: save it as "
                        "CSV UTF-8")
    return best[1]


def decodings(content):
    """The texts that a file can be, the likeliest first."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return decoded(content, "utf-16")
    if b"\0" in content[:200]:
        return decoded(content, "utf-16-le" if content[1:2] == b"\0" else "utf-16-be")
    return decoded(content, "utf-8-sig") or sorted(
        decoded(content, "cp1252", "mac-roman"),
        key=lambda text: -len(re.findall("[ß-öø-ÿÄÖÜÉ]|(?<=[ \\w])[–—…’”“„€‘]", text)))


def decoded(content, *encodings):
    """The texts in those of the encodings that it can be in."""
    texts = []
    for encoding in encodings:
        try:
            texts.append(content.decode(encoding))
        except UnicodeDecodeError:
            continue
    return texts


def parsed(path, text, columns):
    """The rows of a table in any of the delimiters."""
    text = text.lstrip("\ufeff")
    separator = re.match(r'"?sep=(.)"?[,;\t]*\r?\n?', text, re.I)
    if separator:
        text = text[separator.end():]
    for delimiter in [separator[1]] if separator else DELIMITERS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter,
                            strict=True)
        lines, number = [], 1 + bool(separator)
        try:
            for line in reader:
                lines.append((number, line))
                number = reader.line_num + 1 + bool(separator)
        except csv.Error as error:
            if delimiter in text.partition("\n")[0]:
                raise UserError(f"{path}, line {number}: {error}; nothing of it was "
                                "taken") from None
            continue
        filled = [(number, line) for number, line in lines
                  if any(map(str.strip, line))]
        header = [name.strip().casefold() for name in filled[0][1]] if filled else []
        if set(columns) <= set(header):
            return [(number, row(path, number, header, line))
                    for number, line in filled[1:]]
    raise UserError(f"{path}: its first line must name the columns "
                    f"{', '.join(columns)}; put them back, or delete the file to have "
                    "it written again without what was filled in")


def row(path, number, header, line):
    """{column: cell} of a line; UserError where cells are beside the columns."""
    named = [name for name in header if name]
    if len(named) != len(set(named)):
        raise UserError(f"{path}: a column is there twice: {', '.join(named)}")
    beside = [cell for name, cell in zip(header + [""] * len(line), line)
              if not name and cell.strip()]
    if beside:
        raise UserError(f"{path}, line {number}: {one_line(beside[0], 60)!r} is beyond "
                        "the last column; a text with the delimiter in it needs quotes")
    cells = [unguarded(cell.strip()) for cell in line]
    return dict.fromkeys(named, "") | {
        name: cell for name, cell in zip(header, cells) if name}
