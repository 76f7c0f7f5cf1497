"""BeaqleJS (https://github.com/HSU-ANT/beaqlejs): the result of one MUSHRA session, a JSON file with the suffix .txt.

It is a list, as `MushraTest.prototype.formatResults` and `SubmitTestResults` of its js/beaqle.js make it: an object for
each test set, with `TestID` and, if it was run, `Runtime`, `rating` (file id -> score) and `filename` (file id -> path
of the recording); then one for the listener, with `UserName`, `UserEmail` and `UserComment`. The hidden reference has
the file id `Reference`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from distilmos.data.exports.rows import Export, Rating, word
from distilmos.data.schema import Scale
from distilmos.data.tables import read_json
from distilmos.errors import InputError

REFERENCE = "Reference"


def read_beaqlejs(path: Path, scale: Scale, faults: list[str]) -> Export:
    """Read a result; see `Reader`. The listener is the user name, or the name of the file if that is empty."""
    export = Export()
    try:
        tests: list[dict[str, Any]] = read_json(path, list[dict[str, Any]])
    except InputError as error:
        faults.append(str(error))
        return export
    names = [str(test["UserName"]).strip() for test in tests if test.get("UserName")]
    listener = next(filter(None, names), path.stem)
    for number, test in enumerate(tests, start=1):
        if "rating" not in test:
            continue
        where = f"{path}: test set {number}"
        ratings, files = test["rating"], test.get("filename")
        if not isinstance(ratings, dict) or not isinstance(files, dict) or not test.get("TestID"):
            faults.append(f"{where}: expected TestID, and rating and filename of each file id")
            continue
        for name, value in ratings.items():
            if not isinstance(files.get(name), str) or isinstance(value, bool) or not isinstance(value, int | float):
                faults.append(f"{where}: rating: {name}: expected a number and its filename, found {value!r}")
            elif not scale.lowest <= value <= scale.highest:
                faults.append(f"{where}: rating: {name}: {value} is not in {scale.span}")
            else:
                sentence = word(str(test["TestID"]))
                export.ratings.append(Rating(where, files[name], float(value), listener, name, sentence=sentence))
    if not export.ratings:
        faults.append(f"{path}: expected the result of a MUSHRA session of BeaqleJS, found no rating")
    return export
