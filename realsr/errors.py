"""The one exception that stands for a mistake of the user's, not of the program's."""


class InputError(ValueError):
    """Bad input: says in one line what is wrong, where, and how to mend it.

    The commands print the line and exit with status 2; everything else keeps its traceback.
    """
