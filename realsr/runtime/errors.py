"""The one exception that stands for a mistake of the user's, not of the program's."""

from __future__ import annotations

import re


class InputError(ValueError):
    """Bad input: says in one line what is wrong, where, and how to mend it.

    The commands print the line and exit with status 2; everything else keeps its traceback.

    Args:
        line: what is wrong; it stays one line where a photo's name has line breaks.
    """

    def __init__(self, line: str) -> None:
        # PyTorch raises an error of a DataLoader's worker anew, with the traceback as its text
        super().__init__(line if line.startswith("Caught ") else one_line(line))


def one_line(text: str) -> str:
    """A text with its control characters written out, of which the names of files may have any."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


def at_least(least: float, prefix: str = "", **values: float) -> None:
    """Check numbers of the user's, given as ``name=value``.

    Raises:
        InputError: one is under ``least`` (or NaN); names it as ``prefix + name``.
    """
    for name, value in values.items():
        if not (isinstance(value, (int, float)) and value >= least):
            raise InputError(f"{prefix}{name}={value}: give {least:g} or more")
