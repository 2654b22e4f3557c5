"""``python -m realsr.sweep DIR``: one table and one picture of the runs of a Hydra multirun, which ends with them.

DIR is the folder of the sweep, in ``outputs``; the table is ``table.md`` there, the picture ``compare.png``.
"""

from __future__ import annotations

import sys
from pathlib import Path

from realsr.evaluation.sweep import report
from realsr.runtime.config import explain, stop
from realsr.runtime.errors import InputError


def main() -> None:
    """Tabulate the folder that the command line names."""
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        stop("give the folder of a sweep: python -m realsr.sweep DIR", 2)
    try:
        report(Path(sys.argv[1]))
    except (InputError, OSError) as e:
        stop(explain(e) or str(e), 2)


if __name__ == "__main__":
    main()
