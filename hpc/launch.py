"""`python hpc/launch.py [VERB] ...`: hands over to `hpc.cli`. Nothing is defined here: __main__ cannot be pickled."""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:] = [str(HERE.parent), *(entry for entry in sys.path if Path(entry or ".").resolve() != HERE)]

from hpc.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
