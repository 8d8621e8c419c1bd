"""What a sweep's elements are here and now: each one's configuration, its folder, how it stands.

In:  the file's elements and the request. Out: `Prepared` elements, or the error of the one that cannot run, before
     anything is started; sweep.json. No torch import.

An element is what its configuration says: when the file has grown and names have become longer, one that was there
before keeps its folder; one that has begun is never started with other settings.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hpc import config as configs
from hpc.config import Config, ConfigError
from hpc.plan import plan_batches
from hpc.prepare import prepare, world_size_of
from hpc.request import Request
from hpc.run_folder import RunFolder
from hpc.sweep.elements import APART, Element, flat
from hpc.sweep.states import (
    ACTIVE,
    CANCELLED,
    FINISHED,
    MISSING,
    STARTED_AGAIN,
    Standing,
    launcher_at_work,
    standings,
)
from hpc.sweep.table import SWEEP_FILE, recorded_elements

FREE = (
    *("cluster.", "log.", "watchdog.", "checkpoint.", "train.resume", "train.max_minutes", "train.threads"),
    *("train.micro_batch", "eval.batch", "eval.chunk"),
    *("data.root", "data.workers", "data.prefetch", "data.verify", "data.shard_url", "data.cache"),
)
"""Keys that may be other when an element goes on: they change where and how it runs, not what it is."""


@dataclass
class Prepared:
    """An element that could be started."""

    element: Element
    config: Config
    folder: RunFolder
    resume: str = "auto"
    """train.resume as this launch wants it; its configuration, which later attempts read, always says auto."""
    standing: Standing = field(default_factory=lambda: Standing(MISSING))

    @property
    def name(self) -> str:
        """Of its folder: that of the element, unless it was here under a shorter one before."""
        return self.folder.path.name


def sweep_folder(request: Request, name: str) -> Path:
    folder = Path(request.run) if request.run else Path("runs") / "sweeps" / name
    if RunFolder(folder).config.exists():
        raise ConfigError(f"run={folder} is a single run; with --array, run= names the folder of a sweep")
    return folder.resolve()


def prepare_elements(path: Path, elements: Sequence[Element], sweep: Path, request: Request) -> list[Prepared]:
    """Each element's configuration, resolved from the file alone: what lies in its folder is compared later."""
    said = io.StringIO()
    prepared = []
    for element in elements:
        with naming(element.name), contextlib.redirect_stdout(said):
            config, _ = prepare(_request_of(element, request, path))
        resume, config.train.resume = config.train.resume, "auto"
        prepared.append(Prepared(element, config, RunFolder(sweep / element.name), resume))
    for line in dict.fromkeys(said.getvalue().splitlines()):
        print(line, flush=True)
    _refuse_unequal_clusters(path, prepared)
    _refuse_twins(path, prepared)
    for one in prepared:
        settings = one.config.train
        with naming(one.name):
            world_size = world_size_of(one.config, request)
            plan_batches(settings.global_batch, world_size, settings.micro_batch, settings.batchnorm_group)
    return prepared


def _request_of(element: Element, request: Request, path: Path) -> Request:
    """The request for this one run: the file's base, then the command line, then what the element varies."""
    typed: dict[str, Any] = {key: value for key in APART if (value := getattr(request, key)) is not None}
    for key in (*typed, *(word.partition("=")[0] for word in request.overrides)):
        if key in element.own:
            raise ConfigError(f"{key} is what {path} varies: leave {key}= out of the command line")
    chosen = {**element.settings, **typed}
    return replace(
        request,
        experiment=chosen.get("experiment"),
        size=chosen.get("size"),
        run=None,
        array="",
        overrides=[f"log.group={json.dumps(element.sweep)}", *element.overrides, *request.overrides],
    )


def _refuse_unequal_clusters(path: Path, prepared: Sequence[Prepared]) -> None:
    first = prepared[0]
    for one in prepared:
        for key, value in vars(one.config.cluster).items():
            if value != (usual := getattr(first.config.cluster, key)):
                raise ConfigError(
                    f"{path}: element {one.name} has cluster.{key}={value}, {first.name} has {usual}: the elements of "
                    "one array ask SLURM for the same; make a sweep for each"
                )


def _refuse_twins(path: Path, prepared: Sequence[Prepared]) -> None:
    seen: dict[str, str] = {}
    for one in prepared:
        text = json.dumps(_identity(one.config, set(one.element.own)), sort_keys=True)
        if text in seen:
            raise ConfigError(f"{path}: elements {seen[text]} and {one.name} are the same run: leave one of them out")
        seen[text] = one.name


@contextlib.contextmanager
def naming(name: str) -> Iterator[None]:
    """An error of the configuration is an error of this element."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"element {name}: {str(error).removeprefix('command line: ')}") from error


# -- what was done before --------------------------------------------------------------------------------------------


def keep_folders(prepared: Sequence[Prepared], sweep: Path) -> None:
    """Give elements the folder in which they began, when they were called otherwise then."""
    taken = {one.element.name for one in prepared}
    varied = {key for one in prepared for key in one.element.own}
    left = [RunFolder(sweep / name) for name in recorded_elements(sweep) if name not in taken]
    begun = [folder for folder in left if folder.config.is_file()]
    kept = [(folder, _identity(configs.load_file(folder.config), varied)) for folder in begun]
    for one in prepared:
        if not one.folder.config.exists():
            identity = _identity(one.config, varied)
            one.folder = next((folder for folder, other in kept if other == identity), one.folder)


def look(prepared: Sequence[Prepared], sweep: Path, request: Request, path: Path, alone: bool = False) -> None:
    """Learn how each element stands.

    Raises:
        ConfigError: one that has begun would go on as something else.
    """
    at_work = not alone and launcher_at_work(sweep)
    for one, standing in zip(prepared, standings([one.folder for one in prepared], at_work), strict=True):
        one.standing = standing
    for one in prepared:
        begun = one.standing.state in (*ACTIVE, FINISHED) or one.folder.newest_checkpoint() is not None
        anew = one.resume == "never" and is_started(one.standing, request)
        if begun and not anew and one.folder.config.is_file():
            _refuse_change(one, sweep, path)


def _refuse_change(one: Prepared, sweep: Path, path: Path) -> None:
    varied = set(one.element.own)
    before, now = _identity(configs.load_file(one.folder.config), varied), _identity(one.config, varied)
    if changed := [key for key in {**before, **now} if before.get(key) != now.get(key)]:
        key = changed[0]
        raise ConfigError(
            f"element {one.name} has begun with {key}={before.get(key)}, and would now have {key}={now.get(key)}: "
            f"put that back (in {path} or on the command line), or give what is another sweep another name (name: in "
            f"the file). What has begun is in {sweep}"
        )


def _identity(config: Config, varied: set[str]) -> dict[str, Any]:
    """What makes a run this one: every key but those that only say where and how it runs."""
    settings = flat(configs.to_dict(config))
    return {key: value for key, value in settings.items() if key in varied or not key.startswith(FREE)}


def is_started(standing: Standing, request: Request) -> bool:
    """Whether this launch starts it: cancelled ones only when the command says train.resume=."""
    asked = any(word.startswith("train.resume=") for word in request.overrides)
    return standing.state in STARTED_AGAIN or (standing.state == CANCELLED and asked)


def record(sweep: Path, path: Path, prepared: Sequence[Prepared]) -> None:
    """sweep.json: the elements of the file, then those that it once had."""
    now = {one.name: {"own": one.element.own, "in_file": True} for one in prepared}
    before = {name: {**about, "in_file": False} for name, about in recorded_elements(sweep).items() if name not in now}
    text = json.dumps({"sweep": prepared[0].element.sweep, "file": str(path), "elements": now | before}, indent=1)
    partial = sweep / (SWEEP_FILE + ".tmp")
    partial.write_text(text + "\n")
    partial.replace(sweep / SWEEP_FILE)
