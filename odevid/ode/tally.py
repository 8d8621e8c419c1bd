"""How often a field is evaluated: while its solve runs, and after it, for the gradient.

In: a solve that counts each evaluation. Out: two numbers that python knows: nothing waits for the device.
"""

from dataclasses import dataclass


@dataclass
class Tally:
    """Evaluations of one solve; those that come when it is `solved` are of its backward pass."""

    forward: int = 0
    backward: int = 0
    solved: bool = False

    def count(self) -> None:
        if self.solved:
            self.backward += 1
        else:
            self.forward += 1
