"""Sheets hold each frame at its place in a border of its colour; colours of time and of heat are read back."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from PIL import GifImagePlugin, Image

from odevid.pictures import sheet as sheets
from odevid.pictures import style
from odevid.pictures.heat import heat, heat_legend
from odevid.pictures.latent import save_latent_png
from odevid.pictures.sheet import Cell, Lettering, film, save_animation, save_sheet, sheet
from odevid.pictures.steps import StepScore, save_steps_png, step_name
from odevid.pictures.trajectory import moments, time_colours, time_legend, trajectory_image
from odevid.studies.projection import pca, tsne

SIZE = 12


def _cell(level: int, border: style.Colour = style.PREDICTED) -> Cell:
    return Cell(np.full((SIZE, SIZE, 3), level, np.uint8), border)


def _find(picture: np.ndarray, colour: style.Colour) -> list[tuple[int, int]]:
    """Upper left corners of frames with a border of `colour`."""
    is_border = (picture == colour).all(axis=-1)
    side = SIZE + 2 * sheets.BORDER
    return [
        (int(x), int(y))
        for x, y in zip(*np.nonzero(is_border), strict=True)
        if is_border[x, y : y + side].all()
        and is_border[x : x + side, y].all()
        and not is_border[x - 1, y]
        and not is_border[x, y - 1]
    ]


class TestSheet:
    def test_cells_stand_in_rows_and_columns_and_empty_ones_stay_paper(self):
        cells: list[list[Cell | None]] = [[_cell(10), None], [_cell(30, style.BETWEEN), _cell(40)]]
        picture = sheet(cells, Lettering(["a", "b"], ["1", "2"], "title", breaks={1}))
        (first, last), (between,) = _find(picture, style.PREDICTED), _find(picture, style.BETWEEN)
        for (x, y), level in ((first, 10), (last, 40), (between, 30)):
            inside = picture[x + sheets.BORDER : x + SIZE + sheets.BORDER, y + sheets.BORDER : y + SIZE + sheets.BORDER]
            assert (inside == level).all()
        side = SIZE + 2 * sheets.BORDER + sheets.GAP
        assert between == (first[0] + side + sheets.BREAK, first[1])
        assert last == (between[0], between[1] + side)
        assert (picture[first[0] : first[0] + side - sheets.GAP, last[1] : last[1] + side] == style.PAPER).all()

    def test_title_and_legend_fit_whatever_the_cells(self):
        narrow = sheet([[_cell(0)]], Lettering([""]))
        words = Lettering([""], title="x" * 40, legend=[("given", style.GIVEN), ("truth", style.TRUTH)])
        wide = sheet([[_cell(0)]], words)
        assert wide.shape[1] > style.text_width("x" * 40, sheets.LETTERS) > narrow.shape[1]
        assert (wide == style.GIVEN).all(axis=-1).sum() >= 100
        assert (wide[:, -3:] == style.PAPER).all()

    def test_names_that_do_not_fit_and_cells_of_two_sizes_are_refused(self):
        with pytest.raises(ValueError, match="1 rows of \\[1\\] cells, with 2 names"):
            sheet([[_cell(0)]], Lettering(["a", "b"]))
        with pytest.raises(ValueError, match="of one size"):
            sheet([[_cell(0), Cell(np.zeros((3, 3, 3), np.uint8), style.TRUTH)]], Lettering(["a"]))

    def test_a_film_is_green_while_given(self):
        cells = film(torch.rand(5, 1, SIZE, SIZE), 2, style.TRUTH, scale=2)
        assert [cell.border for cell in cells] == [style.GIVEN] * 2 + [style.TRUTH] * 3
        assert cells[0].frame_HW3.shape == (2 * SIZE, 2 * SIZE, 3)

    def test_files_are_what_was_drawn(self, tmp_path):
        pictures = [sheet([[_cell(level)]], Lettering(["row"])) for level in (0, 90, 250)]
        paths = save_animation(tmp_path, "film", pictures, 5)
        assert [path.name for path in paths] == ["film.gif", "film.mp4"]
        with GifImagePlugin.GifImageFile(paths[0]) as gif:
            assert gif.n_frames == 3
        with av.open(str(paths[1])) as container:
            assert container.streams.video[0].average_rate == 5
        save_sheet(tmp_path / "a.png", [[_cell(90)]], Lettering(["row"]))
        with Image.open(tmp_path / "a.png") as image:
            assert np.array_equal(np.array(image), pictures[1])


class TestTrajectory:
    def test_a_moving_dot_leaves_the_colour_of_its_moment(self):
        frames = torch.zeros(4, 1, 9, 9)
        for t in range(4):
            frames[t, 0, 4, 2 * t] = 1
        picture = trajectory_image(frames)
        for t, colour in enumerate(time_colours(4)):
            assert np.array_equal(picture[4, 2 * t], np.rint(colour * 255))
        assert picture.sum(axis=-1).astype(bool).sum() == 4

    def test_on_a_bright_ground_only_what_moves_has_a_colour(self):
        frames = torch.full((5, 3, 8, 8), 0.8)
        for t in range(5):
            frames[t, :, t, 3] = 0.1
        picture = trajectory_image(frames).astype(int)
        is_grey = np.ptp(picture, axis=-1) == 0
        assert (~is_grey).sum() == 5
        assert not is_grey[:5, 3].any()

    def test_the_legend_names_the_frames_that_are_shown(self):
        assert moments(13, 4).tolist() == [0, 4, 8, 12]
        names, colours = zip(*time_legend(13, 4), strict=True)
        assert names == ("frame 1", "5", "9", "13")
        assert len(set(colours)) == 4
        assert moments(3, 8).tolist() == [0, 1, 2]


class TestHeat:
    def test_larger_is_brighter_and_the_top_is_the_legends_last(self):
        picture = heat(torch.tensor([[0.0, 0.1, 0.2, 0.4]]), top=0.4)
        brightness = picture[0].sum(axis=-1)
        assert (np.diff(brightness.astype(int)) > 0).all()
        legend = heat_legend(0.4, "deviation")
        assert [name for name, _ in legend] == ["deviation 0", "0.1", "0.2", "0.3", "0.4"]
        assert tuple(picture[0, 3]) == legend[-1][1]
        assert tuple(picture[0, 1]) == legend[1][1]

    def test_nothing_but_zeros_is_black_and_nan_is_refused(self):
        assert heat(np.zeros((2, 2)), top=0.0).max() <= 4
        with pytest.raises(ValueError, match="finite"):
            heat(np.full((2, 2), np.nan), 1.0)


class TestPlots:
    def test_latent_trajectories_are_drawn_for_all_projections(self, tmp_path):
        points = torch.randn(2 * 3 * 6, 4, generator=torch.Generator().manual_seed(0))
        found = [pca(points), tsne(points)]
        path = save_latent_png(tmp_path / "a.png", found, (2, 3, 6), 2, ["a", "b", "c"])
        with Image.open(path) as image:
            picture = np.array(image.convert("RGB"))
        assert (picture == style.GIVEN).all(axis=-1).any() and (picture == style.PREDICTED).all(axis=-1).any()
        with pytest.raises(ValueError, match="are not N \\* B \\* T"):
            save_latent_png(tmp_path / "b.png", found, (2, 3, 5), 2, ["a", "b", "c"])

    def test_scores_over_step_sizes(self, tmp_path):
        scores = {"PSNR (dB)": [StepScore(1, 16.0, 0.1), StepScore(2, 16.5, None)], "SSIM": [StepScore(1, 0.7, 0.01)]}
        with Image.open(save_steps_png(tmp_path / "a.png", scores, 2)) as image:
            assert image.width > image.height
        assert [step_name(step) for step in (1, 2, 5)] == ["1", "1/2", "1/5"]
        with pytest.raises(ValueError, match="no scores"):
            save_steps_png(tmp_path / "b.png", {}, 2)
