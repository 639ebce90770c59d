"""The page of feedback that a student gets: points, hints, comments, and the work."""

import html

from nbgrader.utils import is_locked

from lab.cells import part

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
      content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Feedback for {student}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto;
       padding: 0 1rem; color: #1b1b1b; background: #fff }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0;
         border-bottom: 1px solid #ddd }}
td:nth-child(2) {{ white-space: nowrap }}
img {{ max-width: 100% }}
pre {{ background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: 14px }}
</style>
<h1>Feedback for {student}</h1>
{sections}
</html>
"""


def pictures(cell):
    return [html.escape("".join(output.data["image/png"].split()))
            for output in cell.get("outputs", [])
            if output.output_type == "display_data"]


def section(work, graded, given, comments, total, most):
    """The part of a feedback page about one exercise, as HTML."""
    rows, code = [], []
    for cell in graded.cells:
        name = part(cell)
        said = [output.evalue if output.ename == "Hint"
                else f"{output.ename}: {output.evalue}"
                for output in cell.get("outputs", []) if output.output_type == "error"]
        grade = given.get(name)
        if grade:
            score = f"{grade.score:g} of {grade.max_score:g}"
            if grade.auto_score is None and grade.manual_score is None:
                score = f"not marked yet, of {grade.max_score:g}"
            elif grade.manual_score is not None:
                said = []
            said.append(comments.get((work.student, work.exercise, name), ""))
            rows.append((name.removesuffix("-checks"), score, " ".join(said).strip()))
        if not is_locked(cell) and cell.source.strip():
            code.append(f"<pre>{html.escape(cell.source)}</pre>")
            code += [f"<p>{html.escape(text)}</p>" for text in said if not grade]
            code += [f'<img alt="figure" src="data:image/png;base64,{picture}">'
                     for picture in pictures(cell)]
    cells = "\n".join("<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row)
                      + "</tr>" for row in rows)
    overall = comments.get((work.student, work.exercise, ""), "")
    return (f"<h2>{html.escape(work.exercise)}: {total:g} of {most:g} points</h2>\n"
            f"<p>{html.escape(overall)}</p>\n<table><tr><th>part</th><th>points</th>"
            f"<th>what to look at</th></tr>\n{cells}</table>\n"
            f"<h3>What you handed in ({html.escape(work.name)})</h3>\n"
            + "\n".join(code))
