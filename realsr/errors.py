"""The one exception that stands for a mistake of the user's, not of the program's."""


class InputError(ValueError):
    """Bad input: says in one line what is wrong, where, and how to mend it.

    The commands print the line and exit with status 2; everything else keeps its traceback.
    """


def at_least(least: float, prefix: str = "", **values: float) -> None:
    """Check numbers of the user's, given as ``name=value``.

    Raises:
        InputError: one is under ``least`` (or NaN); names it as ``prefix + name``.
    """
    for name, value in values.items():
        if not (isinstance(value, (int, float)) and value >= least):
            raise InputError(f"{prefix}{name}={value}: give {least:g} or more")
