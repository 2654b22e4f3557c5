"""``python -m realsr.sweep DIR``: a table and a picture of a sweep's runs, which a sweep also makes at its end.

DIR is the folder of the sweep, in ``outputs``; the table is ``table.md`` there, the picture ``compare.png``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from realsr.evaluation.sweep import report
from realsr.runtime.config import explain, stop
from realsr.runtime.errors import InputError


def main() -> None:
    """Tabulate the sweep whose folder is given on the command line."""
    if len(sys.argv) != 2 or sys.argv[1][:1] in ("", "-"):
        stop("give the folder of a sweep: python -m realsr.sweep DIR", 2)
    try:
        print(f"tabulating the runs in {sys.argv[1]}")
        report(Path(sys.argv[1]))
    except (InputError, OSError) as e:
        stop(explain(e) or str(e), 2)


if __name__ == "__main__":
    main()
