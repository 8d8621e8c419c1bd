"""The verb `evaluate`: a run's checkpoint on its test split, on any number of ranks, without DeepSpeed.

In: a run folder. Out: RUN/evaluation/ with table, curves, pictures and every score; the table on the terminal.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from hpc import config as configs
from hpc.config import Config
from hpc.data import ensure_dataset, open_split
from hpc.distributed import World
from hpc.evaluation import Evaluation, EvaluationStopped, evaluate, protocol_of
from hpc.export import load_predictor
from hpc.results import format_table, table_rows, write_results
from hpc.run_folder import RunFolder
from hpc.stop import StopCause, StopFlag
from hpc.tracking.console import progress_bar
from hpc.version import code_version
from hpc.watchdog.watchdog import Watchdog


def evaluate_run(
    config: Config, folder: RunFolder, world: World, stop: StopFlag, watchdog: Watchdog
) -> tuple[int, StopCause | None]:
    """Collective. Returns the step of the evaluated weights and why it stopped early, if it did."""
    model, step = load_predictor(config, folder, world)
    world.on_rank_0(lambda: ensure_dataset(config.data))
    source = open_split(config.data, "test", config.eval.test_num_frames, folder.allowed_pipes())
    settings = config.eval
    protocol = protocol_of(
        config, source, "eval.test_clips", settings.test_clips, settings.test_num_frames, settings.test_samples
    )
    cause: list[StopCause] = []
    try:
        with progress_bar("evaluate", enabled=world.rank == 0) as progress:
            found = evaluate(
                model,
                source,
                protocol,
                world,
                autocast=lambda: torch.autocast(
                    world.device.type, torch.bfloat16, enabled=config.train.precision == "bf16"
                ),
                stopping=_collect(stop, world, cause, lambda: watchdog.beat(step, "validate")),
                progress=progress,
            )
    except EvaluationStopped:
        return step, cause[0]
    if world.rank == 0:
        _report(found, config, folder, step)
    world.barrier()
    return step, None


def _collect(stop: StopFlag, world: World, causes: list[StopCause], beat: Callable[[], None]) -> Callable[[], bool]:
    def stopping() -> bool:
        beat()
        cause = stop.agree(lambda code: world.all_max([code])[0])
        causes.extend([cause] if cause else [])
        return cause is not None

    return stopping


def _report(found: Evaluation, config: Config, folder: RunFolder, step: int) -> None:
    about = {"step": step, "protocol": vars(found.protocol), "config": configs.to_dict(config), "code": code_version()}
    files = write_results(found, folder.evaluation, about)
    print(
        f"\nstep {step}, {len(found.clips)} test clips, "
        f"frames {found.protocol.num_context + 1} to {found.protocol.num_frames}"
    )
    print(format_table(table_rows(found)))
    for name, path in files.items():
        print(f"{name:12} {path}")
