"""Whether the solver's step was fine enough: by how much scores change where it is halved, in one sentence.

In: a run whose evaluation was made with eval.halve_step. Out: a block of the page, or none.
"""

from __future__ import annotations

from hpc.evaluation.scores import STEP_HALVED
from hpc.report.blocks import Block, Paragraph
from hpc.report.facts import RunFacts

MEANING = (
    "A field that was trained at one coarse step may only be a residual network for that step; where PSNR changes much "
    "as the step is halved, frames between those of the data mean nothing (Ott et al. 2020, Queiruga et al. 2020)."
)


def step_halved(run: RunFacts) -> list[Block]:
    """The change of PSNR with its interval, and what it means."""
    line = run.evaluation.scores.score(STEP_HALVED, "psnr") if run.evaluation else None
    if run.evaluation is None or line is None:
        return []
    halved = run.evaluation.scores.protocol.get("halved")
    steps = f" ({halved} steps per frame instead of {halved // 2})" if isinstance(halved, int) else ""
    change = f"{line.mean:+.3f} ± {line.half_width:.3f} dB".replace("-", "−")
    text = (
        f"With half the solver's step{steps} the PSNR of the first sample of {line.videos:,} "
        f"video{'s' * (line.videos != 1)} changes by {change}. {MEANING}"
    )
    return [Paragraph(text)]
