"""Sweeps: one file, many runs. `elements` reads the file, `prepared` resolves what is in it, `run` starts what is to be
started, `states` and `table` tell how far each element is."""

from hpc.sweep.cancel import cancel_sweep
from hpc.sweep.run import run_sweep
from hpc.sweep.table import is_sweep, sweep_table

__all__ = ["cancel_sweep", "is_sweep", "run_sweep", "sweep_table"]
