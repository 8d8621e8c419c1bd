"""The command line decides where to run and says loudly what it chose; errors say what to type."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpc import cli
from hpc import config as configs
from hpc import prepare as preparing
from hpc import request as requests
from hpc.config import ConfigError
from hpc.dry_run import training_bytes
from hpc.prepare import prepare, uses_gpus, world_size_of
from hpc.request import Request

VERBS = {name: meaning for name, (_, meaning) in cli.VERBS.items()}
ROOT = Path(cli.__file__).resolve().parent.parent


def parse(argv: list[str]) -> Request:
    return requests.parse(argv, VERBS)


@pytest.fixture(autouse=True)
def _no_slurm_no_gpu(monkeypatch):
    monkeypatch.setattr(requests, "has_slurm", lambda: False)
    monkeypatch.setattr(preparing, "count_gpus", lambda: 0)


def test_without_arguments_a_laptop_trains_the_demo_and_says_so(capsys):
    config, folder = prepare(parse([]))
    assert (config.experiment, config.size) == ("srvp_smmnist", "demo")
    assert "size=demo" in capsys.readouterr().out
    assert folder.path.parent.name == "srvp_smmnist"


def test_nodes_on_a_cluster_train_the_published_size(monkeypatch):
    monkeypatch.setattr(requests, "has_slurm", lambda: True)
    request = parse(["--nodes", "4"])
    config, _ = prepare(request)
    assert (request.verb, request.where, config.size, config.model.nf) == ("train", "slurm", "", 64)
    assert world_size_of(config, request) == 32
    assert world_size_of(prepare(parse(["--nodes", "4", "--gpus-per-node", "0"]))[0], request) == 4


def test_a_full_size_schedule_on_a_cpu_wants_an_explicit_yes():
    with pytest.raises(ConfigError, match="--yes-cpu"):
        prepare(parse(["experiment=srvp_bair"]))
    config, _ = prepare(parse(["experiment=srvp_bair", "--yes-cpu"]))
    assert config.size == ""


def test_nodes_without_slurm_are_refused():
    with pytest.raises(ConfigError, match="no sbatch on PATH"):
        parse(["--nodes", "4"])


def test_one_process_per_gpu_is_the_local_default(monkeypatch):
    monkeypatch.setattr(preparing, "count_gpus", lambda: 3)
    request = parse([])
    assert world_size_of(prepare(request)[0], request) == 3


@pytest.mark.parametrize(
    ("words", "slurm", "gpus_here", "expected"),
    [
        ("--nodes 2", True, 0, True),
        ("--nodes 2 --gpus-per-node 0", True, 0, False),
        ("", False, 2, True),
        ("--yes-cpu", False, 0, False),
        ("--gpus-per-node 1 --yes-cpu", False, 0, True),
        ("--gpus-per-node 0 --yes-cpu", False, 2, False),
        ("--ranks 2 --yes-cpu", False, 2, False),
        ("--debug", False, 2, True),
    ],
)
def test_a_gpu_is_needed_wherever_the_cpu_was_not_asked_for(monkeypatch, words, slurm, gpus_here, expected):
    monkeypatch.setattr(requests, "has_slurm", lambda: slurm)
    monkeypatch.setattr(preparing, "count_gpus", lambda: gpus_here)
    request = parse(words.split())
    assert uses_gpus(prepare(request)[0], request) is expected


def test_a_run_with_a_stop_file_is_not_started_to_stop_at_once(tmp_path, capsys):
    configs.save(configs.load("srvp_kth", "test"), tmp_path / "config.yaml")
    (tmp_path / "STOP").touch()
    assert cli.main(["train", f"run={tmp_path}", "--ranks", "1"]) == 2
    assert f"remove that file first: rm {tmp_path / 'STOP'}" in capsys.readouterr().err


def test_a_resume_that_is_refused_leaves_the_stop_file_alone(tmp_path, capsys):
    configs.save(configs.load("srvp_kth", "test"), tmp_path / "config.yaml")
    (tmp_path / "STOP").touch()
    assert cli.main(["resume", str(tmp_path), "--ranks", "3"]) == 2
    assert "valid numbers of ranks" in capsys.readouterr().err
    assert (tmp_path / "STOP").exists()


def test_an_evaluation_of_nothing_is_refused_before_it_queues(tmp_path, capsys):
    configs.save(configs.load("srvp_kth", "test"), tmp_path / "config.yaml")
    assert cli.main(["evaluate", str(tmp_path), "--ranks", "1"]) == 2
    assert "has no checkpoint yet" in capsys.readouterr().err
    (tmp_path / "model.pt").touch()  # the ranks read checkpoints only
    assert cli.main(["evaluate", str(tmp_path), "--ranks", "1"]) == 2
    assert "has no checkpoint yet" in capsys.readouterr().err


def test_a_finished_run_is_not_resumed_for_nothing(tmp_path, capsys):
    configs.save(configs.load("srvp_kth", "test", overrides=["train.steps=20"]), tmp_path / "config.yaml")
    (tmp_path / "model.pt").touch()
    (tmp_path / "checkpoints" / "step-000000020").mkdir(parents=True)
    (tmp_path / "checkpoints" / "step-000000020" / "manifest.json").touch()
    assert cli.main(["resume", str(tmp_path), "--ranks", "1"]) == 2
    assert "is finished (20 steps)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["status", "a", "b"], "takes one run and nothing else: what is b?"),
        (["cancel", "a", "b"], "takes one run and nothing else: what is b?"),
        (["cancel", "a", "--dry-run"], "cancel has no --dry-run"),
        (["doctor", "a"], "doctor checks nodes, not runs; what is a?"),
        (["--nodes", "4", "--ranks", "2"], "--ranks 2 runs here, --nodes 4 on SLURM: give one of them"),
        (["run=100%", "size=test", "--ranks", "1"], "SLURM reads % in the names of logs"),
        (["evaluate", "run=a", "run=b"], "run=a and run=b: evaluate takes one run=, give it once"),
        (["evaluate", "runs/a", "run=b"], "run=runs/a and run=b: evaluate takes one run="),
        (["size=test", "size=demo"], "size=test and size=demo: train takes one size="),
        (["export", "run=a", "run=a"], "export takes one run="),
        (["experiment=srvp_kth", "experiment=srvp_bair"], "train takes one experiment="),
        (["--ranks", "0"], "--ranks 0: expected at least 1"),
        (["evaluate", "run=a", "--ranks", "0"], "--ranks 0: expected at least 1"),
        (["evaluate", "run=a", "--array", "x.yaml"], "--array is not for evaluations: a sweep trains"),
        (["evaluate", "run=a", "--cluster", "x"], "--cluster is not for evaluations: the run's own holds"),
        (["evaluate", "run=a", "--allow-pipe", "x"], "--allow-pipe is not for evaluations"),
        (["evaluate", "run=a", "--yes-cpu"], "--yes-cpu is not for evaluations"),
        (["--mem", "lots"], "--mem lots: expected gigabytes"),
        (["--time", "1-2-3"], "--time 1-2-3: expected minutes"),
        (["--time", "1", "--dry-run", "--nodes", "1"], "expected less than the time limit, 60 s"),
    ],
)
def test_words_that_make_no_sense_are_refused_not_dropped(words, told, capsys):
    assert cli.main(words) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(("given", "gigabytes"), [("64", 64), ("64G", 64), ("1.5TB", 1536), ("1500M", 2)])
def test_memory_as_slurm_writes_it(given, gigabytes):
    assert parse(["--mem", given]).overrides == [f"cluster.mem_gb={gigabytes}"]


@pytest.mark.parametrize(
    ("given", "minutes"), [("90", 90), ("1:30:00", 90), ("1-12", 2160), ("2-00:00:30", 2881), ("10:30", 11)]
)
def test_time_limits_as_slurm_writes_them(given, minutes):
    assert parse(["--time", given]).overrides == [f"cluster.time_min={minutes}"]


def test_a_configuration_that_is_not_whole_is_refused(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("experiment: srvp_kth\n")
    assert cli.main(["resume", str(tmp_path), "--ranks", "1"]) == 2
    assert "is not whole" in capsys.readouterr().err


def test_flags_keys_and_verbs_mix_in_any_order():
    request = parse(["evaluate", "run=x", "--ranks", "2", "eval.test_samples=5"])
    assert (request.verb, request.run, request.ranks, request.overrides) == (
        "evaluate",
        "x",
        2,
        ["eval.test_samples=5"],
    )


@pytest.mark.parametrize("words", [["evaluate", "--help"], ["--nodes", "4", "-h", "evaluate", "run=x"]])
def test_help_on_evaluate_tells_every_key_that_changes_it_and_the_flags(words, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(words)
    assert ended.value.code == 0
    told = capsys.readouterr().out
    below = told.partition("keys (")[2]
    for item in dataclasses.fields(configs.EvalConfig):
        listed = f"  eval.{item.name}= " in below
        assert listed != (item.name in ("every", "clips", "num_frames", "samples")), item.name
    assert "eval.fvd_sets=          Sets of samples whose FVD gives its interval" in below
    assert "python hpc/launch.py evaluate run=RUN" in told
    assert all(flag in told for flag in ("--ranks", "--nodes", "--dry-run", "--time"))
    assert not [flag for flag in ("--array", "--slices", "--cluster", "--yes-cpu") if f"{flag} " in told]
    assert max(map(len, below.splitlines())) <= 120


def test_help_on_evaluate_comes_without_torch():
    code = (
        "import atexit, sys; atexit.register(lambda: print('torch' in sys.modules)); from hpc.cli import main; "
        "main(['evaluate', '--help'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_an_unknown_verb_names_the_known_ones(capsys):
    assert cli.main(["trian"]) == 2
    assert "train, resume, cancel, status, evaluate, report, predict, study, export, doctor" in capsys.readouterr().err


def test_a_started_run_refuses_another_experiment(tmp_path):
    from hpc import config as configs

    configs.save(configs.load("srvp_kth", "test"), tmp_path / "config.yaml")
    with pytest.raises(ConfigError, match="was started with experiment=srvp_kth"):
        prepare(parse([f"run={tmp_path}", "experiment=srvp_bair", "--local"]))
    config, folder = prepare(parse([f"run={tmp_path}", "train.steps=7", "--local"]))
    assert (config.experiment, config.train.steps, folder.path) == ("srvp_kth", 7, tmp_path)


def test_what_checkpoints_are_made_of_cannot_change_under_them(tmp_path):
    from hpc import config as configs

    configs.save(configs.load("srvp_smmnist", "test", overrides=[f"data.root={tmp_path}"]), tmp_path / "config.yaml")
    prepare(parse([f"run={tmp_path}", "model.nf=4", "--local"]))  # nothing is saved yet
    (tmp_path / "checkpoints" / "step-000000002").mkdir(parents=True)
    for override in ("model.nf=4", "seed=2", "data.moving_mnist.digits=2"):
        with pytest.raises(ConfigError, match="has checkpoints made with"):
            prepare(parse([f"run={tmp_path}", override, "--local"]))
    prepare(parse([f"run={tmp_path}", "model.nf=4", "train.resume=never", "--local"]))
    prepare(parse([f"run={tmp_path}", "train.steps=9", "--local"]))


def test_a_dry_run_shows_the_size_that_would_run():
    assert prepare(parse(["--dry-run"]))[0].size == "demo"
    assert prepare(parse(["--dry-run", "experiment=srvp_bair"]))[0].size == ""


def test_a_misspelt_experiment_is_that_and_not_a_matter_of_size():
    with pytest.raises(ConfigError, match="did you mean 'srvp_kth'"):
        prepare(parse(["experiment=srvp_ktt"]))


def test_flags_may_hold_whatever_a_shell_line_holds():
    lines = ["module load cuda's, x", 'export A="b: c"']
    words = [word for line in lines for word in ("--setup", line)]
    cluster = prepare(parse(["size=test", "--constraint", "[a|b]", "--account", "0123", *words]))[0].cluster
    assert (cluster.setup, cluster.constraint, cluster.account) == (lines, "[a|b]", "0123")


def test_the_memory_of_a_rank_follows_the_zero_stage():
    assert training_bytes(1000, zero_stage=0, world_size=4) == 16_000
    assert training_bytes(1000, zero_stage=1, world_size=4) == 4_000 + 4_000 + 12_000 / 4
    assert training_bytes(1000, zero_stage=2, world_size=4) == 4_000 + (4_000 + 12_000) / 4


def test_ranks_are_counted_from_one():
    with pytest.raises(ConfigError, match="at least 1"):
        parse(["--ranks", "-1"])


def test_missing_data_other_than_moving_mnist_is_an_error_with_the_build_command(tmp_path, capsys):
    code = cli.main(
        [
            "experiment=srvp_kth",
            "size=test",
            "data.name=kth",
            f"data.root={tmp_path}",
            "--ranks",
            "1",
            f"run={tmp_path / 'r'}",
        ]
    )
    assert code == 2
    assert "python -m shards build kth" in capsys.readouterr().err


def test_dry_run_shows_everything_and_starts_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(requests, "has_slurm", lambda: True)
    run = tmp_path / "run"
    assert cli.main(["--nodes", "4", "experiment=srvp_bair", f"run={run}", "--dry-run", "--partition", "gpu"]) == 0
    page = capsys.readouterr().out
    assert "23,847,390 parameters" in page
    assert "global batch 192 = micro-batch 6 x accumulation 1 x ranks 32" in page
    assert "checkpoint about 273 MiB" in page
    assert not run.exists()
    golden = Path(__file__).with_name("golden_sbatch.txt").read_text()
    assert _sbatch(page, run) == golden


def _sbatch(page: str, run: Path) -> str:
    """The batch script with what depends on this machine replaced."""
    script = page.partition("# sbatch script\n")[2]
    script = script.replace(sys.executable, "PYTHON").replace(str(run), "RUN")
    script = re.sub(r"RUN/code/[0-9a-f]{12}", "RUN/code/DIGEST", script)
    script = re.sub(r"(--job-name=odevid-train-srvp_bair)-[0-9a-f]{8}\n", r"\1-RUN\n", script)
    return re.sub(
        r"# Parameters\n(#SBATCH .*\n)+",
        lambda m: "# Parameters\n" + "".join(sorted(m[0].splitlines(True)[1:])),
        script,
    )


def test_launch_py_keeps_its_own_folder_off_the_path_and_shadows_no_standard_module():
    names = {path.stem for path in (ROOT / "hpc").glob("*.py")}
    assert not names & set(sys.stdlib_module_names)
    done = subprocess.run(
        [sys.executable, "hpc/launch.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert "python hpc/launch.py --nodes 4" in done.stdout
