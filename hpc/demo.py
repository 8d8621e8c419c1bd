"""`make demo`: build the data, train, evaluate, report, judge. Minutes on two CPU cores; a picture at the end.

Runs the same commands as a user would type, checks that motion was learnt, and says where everything is. Exits with 1
unless the model beats the last frame repeated, on PSNR and by at least 30 % on the median centroid error.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from hpc.evaluation.scores import REPEAT, SINGLE, VELOCITY, Scores, read_scores
from hpc.run_folder import RunFolder, new_run_folder

ROOT = Path(__file__).resolve().parent.parent
REQUIRED_IMPROVEMENT = 0.30


def main() -> int:
    folder = RunFolder(new_run_folder("demo").resolve())
    started = time.monotonic()
    launch("train", "--ranks", "2", "experiment=srvp_smmnist", "size=demo", f"run={folder.path}")
    trained = time.monotonic()
    launch("evaluate", "--ranks", "2", f"run={folder.path}")
    evaluated = time.monotonic()
    launch("report", f"run={folder.path}")
    scores = read_scores(folder.evaluation)
    print(f"\ntrained in {(trained - started) / 60:.1f} minutes, evaluated in {evaluated - trained:.0f} s")
    print(f"pictures       {folder.evaluation / 'samples.gif'}\n               {folder.evaluation / 'samples.png'}")
    print(f"metrics table  {folder.evaluation / 'metrics.csv'}")
    print(f"report         {folder.report}")
    print(f"checkpoint     {newest_checkpoint(folder)}")
    verdicts = judge(scores)
    for passed, text in verdicts:
        print(f"{'ok  ' if passed else 'FAIL'} {text}")
    return 0 if all(passed for passed, _ in verdicts) else 1


def launch(*arguments: str) -> None:
    """Run `python hpc/launch.py ...`; a failure ends the demo with its exit code."""
    command = [sys.executable, str(ROOT / "hpc" / "launch.py"), *arguments]
    print("$ python hpc/launch.py " + " ".join(arguments), flush=True)
    code = subprocess.run(command, check=False).returncode
    if code:
        sys.exit(code)


def judge(scores: Scores) -> list[tuple[bool, str]]:
    """What the demo promises, with the numbers that decide."""
    model, repeated = _mean(scores, SINGLE, "psnr"), _mean(scores, REPEAT, "psnr")
    error, error_repeated = _mean(scores, SINGLE, "centroid"), _mean(scores, REPEAT, "centroid")
    return [
        (model > repeated, f"PSNR of one sample {model:.2f} dB, last frame repeated {repeated:.2f} dB"),
        (
            error <= (1 - REQUIRED_IMPROVEMENT) * error_repeated,
            f"median centroid error, predicted frames 1-5: {error:.2f} px; "
            f"last frame repeated {error_repeated:.2f} px; "
            f"constant velocity {_mean(scores, VELOCITY, 'centroid'):.2f} px",
        ),
    ]


def _mean(scores: Scores, method: str, metric: str) -> float:
    line = scores.score(method, metric)
    assert line is not None, f"evaluate scores {metric} of {method}"
    return line.mean


def newest_checkpoint(folder: RunFolder) -> Path:
    return folder.checkpoints / (folder.checkpoints / "latest").read_text().strip()


if __name__ == "__main__":
    sys.exit(main())
