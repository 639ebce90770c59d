"""Numbers that papers report: papers/NAME.json, for slides and modules."""

import json

from lab import UserError
from lab.cli import ROOT


def value(paper, key):
    """Read a number that a paper reports: value("liu2022", "tiny_accuracy").

    Shares stand for percentages. Raises UserError if the number has no record.
    """
    path = ROOT / "papers" / f"{paper}.json"
    try:
        return json.loads(path.read_text("utf-8"))["results"][key]["value"]
    except FileNotFoundError:
        raise UserError(f"no papers/{paper}.json: write one") from None
    except KeyError:
        raise UserError(f"papers/{paper}.json has no result {key!r}: add it") from None
