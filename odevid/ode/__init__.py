"""Ordinary differential equations with learned fields: a field, a first state and times in; the states there out.

`Solver` is the one interface. Fixed steps are our own loop (`fixed`, by the Butcher tableaus of `tableaus`): python
times, no wait for the device, one graph under torch.compile. Adaptive steps and the continuous adjoint are
torchdiffeq's (`adaptive`), with its traps closed.
"""

from odevid.ode.solver import Solution, Solver

__all__ = ["Solution", "Solver"]
