"""Sheets of .xlsx workbooks. openpyxl is a dependency of the recipes alone, so it is imported where it is used."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

from distilmos.errors import InputError


def read_sheet(workbook: str | Path, sheet: str) -> list[tuple[Any, ...]]:
    """Return the rows of a sheet; a cell has its stored value, a formula the value that the workbook keeps.

    Args:
        workbook: path of the .xlsx file.
        sheet: name of the sheet.

    Raises:
        InputError: if the workbook cannot be read, or has no such sheet or no row in it.
    """
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        rows = list(openpyxl.load_workbook(workbook, read_only=True, data_only=True)[sheet].iter_rows(values_only=True))
    except (
        *(InvalidFileException, zipfile.BadZipFile, zlib.error, RuntimeError, EOFError),
        *(SyntaxError, KeyError, ValueError, TypeError, OSError),  # XML errors of lxml and of Python are SyntaxErrors
    ) as error:
        raise InputError(f"{workbook}: no readable workbook with a sheet '{sheet}': {error}") from None
    if not rows:
        raise InputError(f"{workbook}: sheet '{sheet}' is empty")
    return rows
