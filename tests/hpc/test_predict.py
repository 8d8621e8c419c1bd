"""`predict`: files in, continued videos out; what is wrong with a file is said. Real files, made here with PyAV.

Axis letters: N samples, T frames, C channels, H height, W width.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from hpc.config import Config, ConfigError, load_file
from hpc.given_runs import LoadedRun
from hpc.noise import step_generator
from hpc.predict import main
from hpc.predicting.reading import Opening, reading_of
from hpc.predicting.sampling import Prediction, Wish, check_steps, predict_video
from hpc.predicting.writing import write_prediction
from hpc.run_folder import RunFolder
from odevid.config import EncODEConfig, RNNODEConfig, SRVPConfig
from shards.building.picture import Look
from shards.building.video import Frames, read_video
from shards.errors import ShardError
from shards.manifest import Manifest, video_spec
from tests.conftest import shared_data
from tests.shards.building.colour_videos import write_video

pytestmark = pytest.mark.multiprocess
ROOT = Path(__file__).resolve().parents[2]
STEPS = 150
GIVEN = 2  # model.nt_cond of size=test


class VideoModelOf(torch.nn.Module):
    """Predicts one value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def predict_chunks(self, context_BTCHW: torch.Tensor, times: list[float], *_: object, **__: object):
        yield torch.full((1, 1, len(times), *context_BTCHW.shape[2:]), self.value)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on one grey digit, trained for so long that its samples differ from each other."""
    folder = tmp_path_factory.mktemp("trained")
    settings = [f"train.steps={STEPS}", "optimizer.lr=2e-2", "model.obs_scale=0.05", "model.nf=4", "log.every=100"]
    words = ["--ranks", "1", "size=test", f"data.root={folder / 'data'}", f"run={folder / 'run'}", *settings]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
    process = subprocess.run(
        [sys.executable, "hpc/launch.py", *words],
        cwd=ROOT,
        env=environ | {"OMP_NUM_THREADS": "1"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.returncode == 0, process.stdout
    return folder / "run"


def greys(count: int, height: int = 48, width: int = 80) -> list[np.ndarray]:
    """Frames of one grey each, 10, 15, 20 ...: what crop and resizing leave as it is."""
    return [np.full((height, width, 3), 10 + 5 * number, np.uint8) for number in range(count)]


def shades(frames_THWC: np.ndarray) -> list[int]:
    """The greys of such frames; fails if one is not of one grey."""
    assert (frames_THWC == frames_THWC[:, :1, :1]).all()
    return [int(value) for value in frames_THWC[:, 0, 0, 0]]


def predict(run: Path, *words: object) -> int:
    return main([f"run={run}", "--device", "cpu", *map(str, words)])


def npz_of(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "prediction.npz") as stored:
        return {name: stored[name] for name in stored}


def pictures_of(gif: Path) -> list[np.ndarray]:
    with Image.open(gif) as image:
        return [np.array(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]


def test_a_video_is_continued_in_pictures_and_an_npz(run: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "my clip.mp4", greys(7), rate=10)
    assert predict(run, clip, "--n-future", 4, "--samples", 3) == 0
    folder = run / "predictions" / "my_clip"
    found = npz_of(folder)
    assert found["given"].shape == (GIVEN, 64, 64, 1)
    assert found["samples"].shape == (3, 4, 64, 64, 1)
    assert found["samples"].dtype == np.uint8
    assert shades(found["given"]) == [10, 15]
    assert shades(found["truth"]) == [20, 25, 30, 35]
    assert found["times"].tolist() == found["truth_times"].tolist() == [2, 3, 4, 5]
    assert (found["fps"], found["seed"], found["step"], found["run"]) == (10, 1, STEPS, str(run))
    with av.open(str(folder / "samples.mp4")) as container:
        assert container.streams.video[0].average_rate == 10
        assert sum(1 for _ in container.decode(video=0)) == GIVEN + 4
    pictures = pictures_of(folder / "samples.gif")
    assert len(pictures) == GIVEN + 4
    green, red = (26, 147, 67), (214, 48, 49)
    borders = [{tuple(map(int, pixel)) for pixel in picture[60:62].reshape(-1, 3)} for picture in pictures]
    assert [(green in colours, red in colours) for colours in borders] == [(True, False)] * GIVEN + [(False, True)] * 4
    with Image.open(folder / "samples.png") as strip:
        assert strip.width > (GIVEN + 4) * 64


def test_the_samples_are_those_of_the_models_own_predict(run: Path, tmp_path: Path) -> None:
    from hpc.export import load_model

    clip = write_video(tmp_path / "clip.avi", greys(2), rate=10)
    assert predict(run, clip, "--n-future", 3, "--samples", 2, "--seed", 5, "--out", tmp_path) == 0
    model, _ = load_model(load_file(run / "config.yaml"), RunFolder(run))
    context = torch.tensor([10, 15]).view(1, 2, 1, 1, 1).expand(1, 2, 1, 64, 64) / 255
    frames = model.predict(context, n_future=3, n_samples=2, generator=step_generator(5, 0, "predict"))
    wanted = (frames[:, 0] * 255).round().permute(0, 1, 3, 4, 2).numpy()
    found = npz_of(tmp_path / "clip")["samples"].astype(int)
    assert np.abs(found - wanted).max() <= 1
    assert (found == wanted).mean() > 0.999


def test_a_seed_gives_its_samples_alone_and_among_others(run: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    for name in ("a", "sub/b"):
        write_video(videos / f"{name}.mp4", greys(4), rate=10)
    common = ("--n-future", 2, "--samples", 2)
    assert predict(run, videos, *common, "--out", tmp_path / "all") == 0
    assert predict(run, videos / "sub" / "b.mp4", *common, "--out", tmp_path / "one") == 0
    assert predict(run, videos / "a.mp4", *common, "--out", tmp_path / "other", "--seed", 2) == 0
    alone, among = npz_of(tmp_path / "one" / "b")["samples"], npz_of(tmp_path / "all" / "sub" / "b")["samples"]
    assert np.array_equal(alone, among)
    assert not np.array_equal(npz_of(tmp_path / "other" / "a")["samples"], npz_of(tmp_path / "all" / "a")["samples"])


def test_fps_and_start_choose_frames_by_their_time(run: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", greys(20), rate=20)
    options = ("--fps", 10, "--start", 0.5, "--n-future", 3, "--out", tmp_path)
    assert predict(run, clip, *options) == 0
    found = npz_of(tmp_path / "clip")
    assert shades(found["given"]) == [10 + 5 * number for number in (10, 12)]
    assert shades(found["truth"]) == [10 + 5 * number for number in (14, 16, 18)]
    assert (found["fps"], found["first"]) == (10, 5)


def test_the_crop_is_the_one_asked_for(run: Path, tmp_path: Path) -> None:
    frame = np.full((48, 96, 3), 200, np.uint8)
    frame[:, :16] = 50
    clip = write_video(tmp_path / "clip.mp4", [frame] * 4)
    for crop, has_dark, has_bright in (("center", False, True), ("0,0,16,48", True, False), ("squash", True, True)):
        assert predict(run, clip, "--crop", crop, "--n-future", 1, "--out", tmp_path / crop) == 0
        given = npz_of(tmp_path / crop / "clip")["given"]
        assert ((given == 50).any(), (given == 200).any()) == (has_dark, has_bright)


def test_a_gif_is_a_video_too(run: Path, tmp_path: Path) -> None:
    frames = [Image.fromarray(frame) for frame in greys(5)]
    frames[0].save(tmp_path / "clip.gif", save_all=True, append_images=frames[1:], duration=100)
    assert predict(run, tmp_path / "clip.gif", "--n-future", 3, "--out", tmp_path) == 0
    found = npz_of(tmp_path / "clip")
    assert shades(found["given"]) + shades(found["truth"]) == [10, 15, 20, 25, 30]
    assert found["fps"] == 10


def test_where_the_video_ends_there_is_no_truth(run: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", greys(GIVEN + 1), rate=10)
    assert predict(run, clip, "--n-future", 3, "--samples", 1, "--out", tmp_path) == 0
    found = npz_of(tmp_path / "clip")
    assert shades(found["truth"]) == [20]
    assert found["truth_times"].tolist() == [2]
    assert found["samples"].shape[1] == 3
    pictures = pictures_of(tmp_path / "clip" / "samples.gif")
    middle = [picture[58 + 20 : 58 + 40, 40:100] for picture in pictures]
    assert [int(part.max()) for part in middle[:3]] == [10, 15, 20]
    assert (middle[3] == 255).all(), "the place of the truth is not empty after the end of the video"


def test_frames_between_leave_the_others_as_they_are(run: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", greys(6), rate=10)
    common = ("--n-future", 3, "--samples", 2, "--substeps", 4)
    assert predict(run, clip, *common, "--out", tmp_path / "plain") == 0
    assert predict(run, clip, *common, "--times-per-frame", 4, "--out", tmp_path / "fine") == 0
    plain, fine = npz_of(tmp_path / "plain" / "clip"), npz_of(tmp_path / "fine" / "clip")
    assert fine["times"].tolist() == [1 + quarter / 4 for quarter in range(1, 13)]
    assert np.abs(fine["samples"][:, 3::4].astype(int) - plain["samples"]).max() <= 1
    with av.open(str(tmp_path / "fine" / "clip" / "samples.mp4")) as container:
        assert container.streams.video[0].average_rate == 40


def test_in_a_folder_a_bad_file_is_told_and_the_others_are_done(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    videos = tmp_path / "videos"
    write_video(videos / "good.mp4", greys(5))
    write_video(videos / "short.mp4", greys(1))
    (videos / "text.avi").write_text("this is no video")
    assert predict(run, videos, "--n-future", 2, "--out", tmp_path / "out") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good"]
    told = " ".join(capsys.readouterr().err.split())
    assert "2 of 3 videos could not be used" in told
    assert "short.mp4" in told
    assert "unreadable" in told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("CLIP", "--fps", "60"), "25 frames per second, 60 are wanted.*--fps 25 or less, or --fps own"),
        (("CLIP", "--fps", "fast"), "--fps fast: expected frames per second"),
        (("CLIP", "--start", "0.2"), "0 frames from 0.2 s on .every frame., 2 are given.*less than 0.2"),
        (("CLIP", "--crop", "0,0,500,500"), "outside the frame.*80x48"),
        (("CLIP", "--crop", "middle"), "--crop middle: expected center, squash"),
        (("CLIP", "--times-per-frame", "2", "--substeps", "3"), "multiple of --times-per-frame 2.*--substeps 2"),
        (("CLIP", "--device", "abacus"), "--device abacus: expected cpu"),
        (("CLIP", "model.nt_cond=4"), "3 frames from 0 s on .*4 are given to the model; try .*model.nt_cond=3"),
        (("CLIP", "model.nt_cond=4", "--fps", "10"), "2 frames from 0 s on .at 10 frames.*--fps own or a higher"),
        (("CLIP", "eval.checkpont=best"), "unknown key 'eval.checkpont'; did you mean 'eval.checkpoint'"),
        (("CLIP", "--out", "NOVIDEO"), "cannot write to .*NOVIDEO.mp4/CLIP.*--out"),
        (("absent.mp4",), "absent.mp4: no such file or folder"),
        ((), "no video named"),
        (("NOVIDEO",), "NOVIDEO.mp4: unreadable"),
        (("EMPTY",), "no video files"),
    ],
)
def test_what_cannot_be_done_is_said(run: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    clip = write_video(tmp_path / "CLIP.mp4", greys(3))
    novideo, empty = tmp_path / "NOVIDEO.mp4", tmp_path / "EMPTY"
    novideo.write_bytes(b"\0" * 100)
    empty.mkdir()
    paths = {"CLIP": clip, "NOVIDEO": novideo, "EMPTY": empty}
    with pytest.raises((ConfigError, ShardError), match=f"(?s){said}"):
        main([f"run={run}", *(str(paths.get(word, word)) for word in words)])


def test_a_run_without_checkpoints_says_so(run: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", greys(3))
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    with pytest.raises(ConfigError, match="no checkpoint"):
        predict(tmp_path / "new", clip)
    with pytest.raises(ConfigError, match="takes one run=RUN, found 0"):
        main([str(clip)])


def test_steps_contain_those_of_training_and_every_predicted_time() -> None:
    for model in (SRVPConfig(n_euler_steps=2), RNNODEConfig(method="rk4", substeps=2)):
        assert [check_steps(per_frame, None, model) for per_frame in (1, 2, 3, 4)] == [2, 2, 6, 4]
        assert check_steps(3, 9, model) == 9
        with pytest.raises(ConfigError, match=r"--substeps 2 has no step at every 1/3 frame.* such as --substeps 6"):
            check_steps(3, 2, model)


def test_a_model_from_frame_to_frame_predicts_at_whole_frames_only() -> None:
    model = SRVPConfig(dynamics="gru", l2_res=0.0)
    assert check_steps(1, None, model) is None
    assert check_steps(1, 1, model) is None
    for per_frame, substeps in ((2, None), (1, 2)):
        with pytest.raises(ConfigError, match=r"\(srvp\) .*no time step: .* a run whose model is continuous in time$"):
            check_steps(per_frame, substeps, model)


def test_a_solver_that_chooses_its_steps_reaches_any_time_and_takes_no_steps_from_the_user() -> None:
    model = EncODEConfig(method="dopri5")
    assert [check_steps(per_frame, None, model) for per_frame in (1, 2, 7)] == [None] * 3
    with pytest.raises(ConfigError, match=r"--substeps 1: .* \(enode, see model.method\) chooses its own steps"):
        check_steps(1, 1, model)


def test_the_npz_of_a_model_without_time_steps_says_so(tmp_path: Path) -> None:
    opening = Opening(np.zeros((2, 1, 64, 64), np.uint8), np.zeros((0, 1, 64, 64), np.uint8), None, 0, ())
    wish = Wish(n_future=1, samples=1, per_frame=2, substeps=None, seed=1)
    made = Prediction(opening, np.zeros((1, 2, 1, 64, 64), np.uint8), np.array([1.5, 2.0]), wish)
    write_prediction(tmp_path, made, {})
    assert npz_of(tmp_path)["substeps"] == 0


def test_a_model_that_predicts_nan_is_told() -> None:
    loaded = LoadedRun(RunFolder(Path("r")), Config(), VideoModelOf(float("nan")), 3, torch.device("cpu"))
    opening = Opening(np.zeros((2, 1, 64, 64), np.uint8), np.zeros((0, 1, 64, 64), np.uint8), None, 0, ())
    with pytest.raises(ConfigError, match="predicts NaN at step 3"):
        predict_video(loaded, opening, Wish(n_future=2, samples=1, per_frame=1, substeps=1, seed=1))


def test_help_needs_no_torch() -> None:
    code = "import sys, hpc.predict; assert 'torch' not in sys.modules; hpc.predict.main(['--help'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--n-future" in done.stdout
    assert "clip.mp4 --n-future 30 --samples 5" in done.stdout


def dataset(root: Path, fps: float | None, **provenance: object) -> Path:
    """A folder with nothing but a manifest."""
    root.mkdir()
    Manifest("made-here", {"video": video_spec(None, 1, 64, 64)}, fps, "zstd", {}, provenance).save(root)
    return root


KTH_LOOK = {"size": 64, "crop": "squash", "resize": "ffmpeg-bicubic", "channels": "first"}


def test_files_are_read_as_the_runs_data_was_built(run: Path, tmp_path: Path) -> None:
    built = {"look": KTH_LOOK | {"crop": [1, 2, 30, 40]}, "settings": {"fps": 5}}
    data = dataset(tmp_path / "videos", 5.0, **built)
    config = load_file(run / "config.yaml", [f"data.root={data}"])
    reading = reading_of(config)
    assert reading.look == Look(64, (1, 2, 30, 40), "ffmpeg-bicubic", "first")
    assert (reading.fps, reading.resamples) == (5, True)
    assert "crop 1,2,30,40 (as dataset" in reading.why
    typed = reading_of(config, "own", "center")
    assert (typed.look.crop, typed.fps) == ("center", None)
    colour = reading_of(load_file(run / "config.yaml", [f"data.root={data}", "model.nc=3"]))
    assert colour.look.channels == "rgb"
    without = reading_of(load_file(run / "config.yaml", [f"data.root={tmp_path / 'moved'}"]))
    assert (without.look, without.fps) == (Look(64, "center", "lanczos", "luma"), None)
    assert "no manifest to read" in without.why


def test_a_real_clip_is_given_as_the_dataset_builder_reads_it(run: Path, tmp_path: Path) -> None:
    clip = shared_data("kth", "person23_running_d3_uncomp.avi")
    data = dataset(tmp_path / "kth", 25.0, look=KTH_LOOK, settings={"size": 64})
    options = ("--start", 1, "--n-future", 10, "--samples", 2, "--out", tmp_path)
    assert predict(run, clip, f"data.root={data}", *options) == 0
    found = npz_of(tmp_path / clip.stem)
    look = Look(64, "squash", "ffmpeg-bicubic", "first")
    wanted = read_video(clip, look, Frames(start=25, count=GIVEN + 10)).frames_TCHW
    assert np.array_equal(np.concatenate((found["given"], found["truth"])), wanted.transpose(0, 2, 3, 1))
    assert found["fps"] == 25
