"""`make demo`: build the data, train, evaluate, judge. Minutes on two CPU cores; a picture at the end.

Runs the same commands as a user would type, checks that motion was learnt, and says where everything is. Exits with 1
unless the model beats the last frame repeated, on PSNR and by at least 30 % on the median centroid error.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

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
    summary = json.loads((folder.evaluation / "scores.json").read_text())["summary"]
    print(f"\ntrained in {(trained - started) / 60:.1f} minutes, evaluated in {evaluated - trained:.0f} s")
    print(f"pictures       {folder.evaluation / 'samples.gif'}\n               {folder.evaluation / 'samples.png'}")
    print(f"metrics table  {folder.evaluation / 'metrics.csv'}")
    print(f"checkpoint     {newest_checkpoint(folder)}")
    verdicts = judge(summary)
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


def judge(summary: dict[str, float]) -> list[tuple[bool, str]]:
    """What the demo promises, with the numbers that decide."""
    model, repeated = summary["psnr_single"], summary["psnr_repeat_last"]
    error, error_repeated = summary["centroid_single"], summary["centroid_repeat_last"]
    return [
        (model > repeated, f"PSNR of one sample {model:.2f} dB, last frame repeated {repeated:.2f} dB"),
        (
            error <= (1 - REQUIRED_IMPROVEMENT) * error_repeated,
            f"median centroid error, predicted frames 1-5: {error:.2f} px; "
            f"last frame repeated {error_repeated:.2f} px; "
            f"constant velocity {summary['centroid_constant_velocity']:.2f} px",
        ),
    ]


def newest_checkpoint(folder: RunFolder) -> Path:
    return folder.checkpoints / (folder.checkpoints / "latest").read_text().strip()


if __name__ == "__main__":
    sys.exit(main())
