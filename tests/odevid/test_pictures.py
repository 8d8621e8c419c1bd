"""Pictures hold what they were given: frames, borders, times and numbers are read back from the files."""

from __future__ import annotations

import csv

import av
import numpy as np
import pytest
import torch
from PIL import GifImagePlugin, Image

from odevid.metrics.interval import interval_per_frame
from odevid.pictures import grid, sheet, strip, style
from odevid.pictures.curves import Curve, save_curves_csv, save_curves_png
from odevid.pictures.gif import save_gif, save_mp4
from odevid.pictures.grid import video_grid
from odevid.pictures.strip import save_strip

B, GIVEN, FUTURE, SIZE = 3, 2, 4, 16


def videos(channels: int = 1) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Context, truth and prediction BTCHW, all random."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(B, GIVEN + 2 * FUTURE, channels, SIZE, SIZE, generator=generator)
    return frames[:, :GIVEN], frames[:, GIVEN : GIVEN + FUTURE], frames[:, GIVEN + FUTURE :]


def make_grid(channels: int = 1) -> np.ndarray:
    context, truth, prediction = videos(channels)
    return video_grid(context, truth, {"best": prediction}, scale=2)


def border_colours(picture: np.ndarray) -> list[tuple[int, int, int]]:
    """Colour of each row's border, found right of the lettering in the first column of borders."""
    side = 2 * SIZE + 2 * grid.BORDER
    left = picture.shape[1] - grid.MARGIN - B * (side + grid.GAP) + grid.GAP
    return [tuple(picture[grid.HEADER + row * (side + grid.GAP), left].tolist()) for row in range(2)]


class TestGrid:
    def test_border_is_green_while_given_then_slate_for_truth_and_red_for_prediction(self):
        pictures = make_grid()
        assert len(pictures) == GIVEN + FUTURE
        for t, picture in enumerate(pictures):
            assert border_colours(picture) == ([style.GIVEN] * 2 if t < GIVEN else [style.TRUTH, style.PREDICTED])

    def test_rebuilt_frames_play_with_a_red_border_where_the_given_ones_would(self):
        context, truth, prediction = videos()
        rebuilt = 1 - context
        pictures = video_grid(context, truth, {"best": prediction}, scale=2, rebuilt=rebuilt)
        plain = make_grid()
        side = 2 * SIZE + 2 * grid.BORDER
        below = grid.HEADER + side + grid.GAP
        left = pictures.shape[2] - grid.MARGIN - grid.BORDER - 2 * SIZE
        for t in range(GIVEN):
            assert border_colours(pictures[t]) == [style.GIVEN, style.PREDICTED]
            shown = pictures[t, below + grid.BORDER : below + grid.BORDER + 2 * SIZE : 2, left : left + 2 * SIZE : 2, 0]
            assert np.array_equal(shown, (rebuilt[-1, t, 0] * 255).round().byte().numpy())
            assert np.array_equal(pictures[t, :below], plain[t, :below]), "the truth is as it was"
        assert np.array_equal(pictures[GIVEN:], plain[GIVEN:])
        with pytest.raises(ValueError, match="rebuilt has shape"):
            video_grid(context, truth, {}, rebuilt=truth)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_frames_are_enlarged_exactly(self, channels):
        prediction = videos(channels)[2]
        picture = make_grid(channels)[GIVEN + 1]
        side = 2 * SIZE + 2 * grid.BORDER
        top = grid.HEADER + side + grid.GAP + grid.BORDER
        left = picture.shape[1] - grid.MARGIN - grid.BORDER - 2 * SIZE  # last video
        shown = picture[top : top + 2 * SIZE : 2, left : left + 2 * SIZE : 2]
        expected = (prediction[-1, 1] * 255).round().byte().permute(1, 2, 0).expand(SIZE, SIZE, 3)
        assert np.array_equal(shown, expected.numpy())

    def test_bytes_and_floats_give_the_same_picture(self):
        context, truth, prediction = ((frames * 255).round().byte() for frames in videos())
        assert np.array_equal(video_grid(context, truth, {"best": prediction.numpy()}), make_grid())

    def test_rows_that_do_not_fit_are_named(self):
        context, truth, prediction = videos()
        with pytest.raises(ValueError, match="row 'best' has shape"):
            video_grid(context, truth, {"best": prediction[:, 1:]})
        with pytest.raises(ValueError, match="context has shape"):
            video_grid(context[:1], truth, {})

    def test_broken_frames_are_refused(self):
        context, truth, _ = videos()
        with pytest.raises(ValueError, match="NaN"):
            video_grid(context, truth * float("nan"), {})
        with pytest.raises(ValueError, match="1 \\(grey\\) or 3 \\(RGB\\)"):
            video_grid(context.expand(-1, -1, 2, -1, -1), truth.expand(-1, -1, 2, -1, -1), {})


class TestGif:
    def test_frames_durations_and_endless_repetition_read_back(self, tmp_path):
        save_gif(tmp_path / "a.gif", make_grid(), fps=4)
        with GifImagePlugin.GifImageFile(tmp_path / "a.gif") as image:
            assert image.n_frames == GIVEN + FUTURE
            assert image.info["loop"] == 0
            for t in range(image.n_frames):
                image.seek(t)
                assert image.info["duration"] == 250

    @pytest.mark.parametrize("channels", [1, 3])
    def test_borders_and_paper_keep_their_exact_colours(self, tmp_path, channels):
        save_gif(tmp_path / "a.gif", make_grid(channels))
        with GifImagePlugin.GifImageFile(tmp_path / "a.gif") as image:
            for t in range(image.n_frames):
                image.seek(t)
                picture = np.array(image.convert("RGB"))
                assert border_colours(picture) == ([style.GIVEN] * 2 if t < GIVEN else [style.TRUTH, style.PREDICTED])
                assert tuple(picture[0, 0]) == style.PAPER

    def test_grey_frames_keep_their_levels(self, tmp_path):
        pictures = make_grid()
        save_gif(tmp_path / "a.gif", pictures)
        with Image.open(tmp_path / "a.gif") as image:
            image.seek(3)
            error = abs(np.array(image.convert("RGB")).astype(int) - pictures[3])
        assert error[grid.HEADER :, pictures.shape[2] // 2 :].max() <= 3

    def test_rate_that_players_do_not_keep_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="at most 50"):
            save_gif(tmp_path / "a.gif", make_grid(), fps=60)

    def test_pictures_of_another_form_are_refused(self, tmp_path):
        with pytest.raises(ValueError, match="expected uint8"):
            save_gif(tmp_path / "a.gif", make_grid().astype(float))


def test_mp4_has_every_picture_at_the_given_rate_and_nearly_its_colours(tmp_path):
    pictures = make_grid()[:, :-1, :-1]
    assert pictures.shape[1] % 2 or pictures.shape[2] % 2
    save_mp4(tmp_path / "a.mp4", pictures, fps=12.5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].average_rate == 12.5
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert len(decoded) == len(pictures)
    inside = decoded[:, : pictures.shape[1], : pictures.shape[2]].astype(int)
    assert abs(inside - pictures)[:, :10, :10].max() <= 4  # paper
    assert abs(inside - pictures).mean() < 8


class TestStrip:
    def test_truth_stands_over_prediction_and_conditioning_is_marked(self, tmp_path):
        context, truth, prediction = videos()
        save_strip(tmp_path / "a.png", context, truth, {"best": prediction}, scale=2)
        with Image.open(tmp_path / "a.png") as image:
            picture = np.array(image)
        side = 2 * SIZE + 2 * sheet.BORDER
        left = picture.shape[1] - sheet.MARGIN - (GIVEN + FUTURE) * (side + sheet.GAP) + sheet.GAP
        top = sheet.MARGIN + 2 * sheet.LINE
        columns = left + np.arange(GIVEN + FUTURE) * (side + sheet.GAP)
        row = [tuple(colour) for colour in picture[top, columns].tolist()]
        below = [tuple(colour) for colour in picture[top + side + sheet.GAP, columns].tolist()]
        assert row == [style.GIVEN] * GIVEN + [style.TRUTH] * FUTURE
        bar = sheet.MARGIN + sheet.LINE // 2 + 4
        over = [tuple(colour) for colour in picture[bar, columns + side - 1].tolist()]
        assert over == [style.GIVEN] * GIVEN + [style.PREDICTED] * FUTURE
        assert below == [style.PAPER] * GIVEN + [style.PREDICTED] * FUTURE
        inside = top + side + sheet.GAP + sheet.BORDER, columns[-1] + sheet.BORDER
        assert picture[inside].tolist() == [round(prediction[0, -1, 0, 0, 0].item() * 255)] * 3

    def test_rebuilt_frames_stand_in_the_rows_of_the_predictions(self):
        context, truth, prediction = videos()
        plain = strip.strip(context, truth, {"best": prediction})
        picture = strip.strip(context, truth, {"best": prediction}, rebuilt=1 - context)
        side = SIZE + 2 * sheet.BORDER
        left = picture.shape[1] - sheet.MARGIN - (GIVEN + FUTURE) * (side + sheet.GAP) + sheet.GAP
        below = sheet.MARGIN + 2 * sheet.LINE + side + sheet.GAP
        for t in range(GIVEN):
            column = left + t * (side + sheet.GAP)
            assert tuple(picture[below, column].tolist()) == style.PREDICTED
            shown = picture[below + sheet.BORDER :, column + sheet.BORDER :, 0][:SIZE, :SIZE]
            assert np.array_equal(shown, ((1 - context)[0, t, 0] * 255).round().byte().numpy())
        ahead = left + GIVEN * (side + sheet.GAP)
        assert np.array_equal(picture[:below], plain[:below])
        assert np.array_equal(picture[:, ahead:], plain[:, ahead:])

    def test_long_videos_are_thinned_out(self):
        context, truth, prediction = videos()
        full = strip.strip(context, truth, {"best": prediction})
        thin = strip.strip(context, truth, {"best": prediction}, max_columns=3)
        assert full.shape[1] - thin.shape[1] == 3 * (SIZE + 2 * sheet.BORDER + sheet.GAP)


class TestCurves:
    def test_numbers_read_back_exactly(self, tmp_path):
        values = {"ours": np.random.default_rng(0).random((5, 3)), "repeat, last": np.ones((5, 3))}
        save_curves_csv(tmp_path / "a.csv", [Curve.of(name, values_BT, 6) for name, values_BT in values.items()])
        with (tmp_path / "a.csv").open() as file:
            lines = list(csv.DictReader(file))
        expected = [
            (name, 6 + t, interval.mean, interval.half_width, 5)
            for name, values_BT in values.items()
            for t, interval in enumerate(interval_per_frame(values_BT))
        ]
        found = [
            (line["curve"], int(line["frame"]), float(line["mean"]), float(line["half_width"]), int(line["videos"]))
            for line in lines
        ]
        assert found == expected

    def test_plot_shows_every_curve_even_with_infinite_values(self, tmp_path):
        exact = np.full((2, 4), np.inf)
        curves = [Curve.of("ours", np.random.rand(2, 4), 3), Curve.of("exact", exact, 3)]
        save_curves_png(tmp_path / "a.png", curves, "PSNR (dB)")
        with Image.open(tmp_path / "a.png") as image:
            colours = np.unique(np.array(image.convert("RGB")).reshape(-1, 3), axis=0).tolist()
        assert [214, 48, 49] in colours  # first curve
        assert [31, 95, 191] in colours  # second curve, in the legend at least

    def test_given_frames_are_shaded_also_under_a_curve_of_them(self, tmp_path):
        ahead, given = Curve.of("ours", np.full((2, 4), 0.5), 3), Curve.of("rebuilt", np.full((2, 2), 0.5), 1)
        shaded = {}
        for name, curves in {"ahead": [ahead], "both": [ahead, given], "given": [given]}.items():
            save_curves_png(tmp_path / f"{name}.png", curves, "PSNR (dB)")
            with Image.open(tmp_path / f"{name}.png") as image:
                red, green, blue = np.moveaxis(np.array(image.convert("RGB")).astype(int), -1, 0)
            shaded[name] = ((green > red + 8) & (green > blue + 8)).mean()
        assert shaded["ahead"] > 0.1
        assert abs(shaded["both"] - shaded["ahead"]) < 0.1
        assert shaded["given"] < 0.01, "nothing is predicted, so nothing is shaded"

    def test_nothing_to_plot_is_refused(self, tmp_path):
        with pytest.raises(ValueError, match="no curve"):
            save_curves_png(tmp_path / "a.png", [], "PSNR (dB)")
