"""InputError, the exception for bad input; all others are faults of the program."""

import importlib
import math
import re
from typing import Any


class InputError(ValueError):
    """Bad input: one line that says what is wrong, where, and how to mend it.

    The commands print the line and exit with status 2; other exceptions keep their traceback.

    Args:
        line: the message; line breaks in it, as file names may have, are escaped.
    """

    def __init__(self, line: str) -> None:
        # PyTorch raises an error of a DataLoader's worker anew, with the traceback as its text
        super().__init__(line if line.startswith("Caught ") else one_line(line))


def one_line(text: str) -> str:
    r"""Escape the control characters of a text, which file names may contain.

    >>> one_line("two\nlines")
    'two\\nlines'
    """
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


def at_least(least: float, prefix: str = "", **values: float) -> None:
    """Check numbers of a config, given by their names, to which the message adds a prefix.

    Raises:
        InputError: a value is no number, less than ``least``, NaN or infinite.

    >>> at_least(1, "data.", batch_size=0)
    Traceback (most recent call last):
    ...
    realsr.runtime.errors.InputError: data.batch_size=0: give 1 or more
    """
    for name, value in values.items():
        if not (isinstance(value, int | float) and value >= least):
            raise InputError(f"{prefix}{name}={value}: give {least:g} or more")
        if value == math.inf:
            raise InputError(f"{prefix}{name}={value}: give a number that is not infinite")


def counted(number: int, noun: str) -> str:
    """A number with its noun, which has an s unless the number is 1.

    >>> counted(1, "photo"), counted(2, "photo")
    ('1 photo', '2 photos')
    """
    return f"{number} {noun}{'s' * (number != 1)}"


def package(name: str, what: str, extra: str) -> Any:
    """Import an optional package; InputError says ``what`` needs it, and the extra by which it is installed."""
    try:
        return importlib.import_module(name)
    except ImportError as e:
        where = f"pip install 'realsr[{extra}]'"
        raise InputError(f"{what} needs the package {name.partition('.')[0]}: {where}") from e


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
