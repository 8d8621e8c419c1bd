"""Frame rate: frames at the data's times are those of a prediction with the same steps; the others lie between."""

import pytest
import torch

from odevid.studies.frame_rate import matching_substeps, predict_fine
from tests.odevid.studies.conftest import CONTEXT, seeds


@pytest.mark.parametrize(("factor", "substeps"), [(1, 2), (2, 2), (4, 4), (3, 6)])
def test_frames_at_whole_times_are_those_of_predict_with_the_same_substeps(vgg, context, factor, substeps):
    assert matching_substeps(2, factor) == substeps
    fine = predict_fine(vgg, context, 3, factor, substeps, generator=seeds())
    assert len(fine.times) == 3 * factor
    assert fine.times[-1] == CONTEXT + 2
    whole = [index for index, at in enumerate(fine.is_whole) if at]
    assert whole == [factor - 1, 2 * factor - 1, 3 * factor - 1]
    plain = vgg.predict(context, 3, substeps=substeps, generator=seeds())[0]
    torch.testing.assert_close(fine.frames_BTCHW[:, whole], plain, rtol=0, atol=1e-12)


def test_doubling_leaves_the_frames_of_a_model_with_two_steps_as_they_were(vgg, context):
    once, twice = (predict_fine(vgg, context, 3, factor, 2, generator=seeds()) for factor in (1, 2))
    torch.testing.assert_close(twice.frames_BTCHW[:, 1::2], once.frames_BTCHW, rtol=0, atol=1e-12)
    assert not torch.allclose(twice.frames_BTCHW[:, 2], once.frames_BTCHW[:, 0], atol=1e-6)


def test_a_solver_that_chooses_its_steps_needs_no_refinement(context):
    class AnyTime:
        def predict(self, context_BTCHW, times, *, substeps, generator):
            assert substeps is None
            return torch.stack([torch.full_like(context_BTCHW[:, 0], time) for time in times], dim=1)[None]

    assert matching_substeps(None, 3) is None
    fine = predict_fine(AnyTime(), context, 2, 3, None)
    assert fine.substeps is None
    assert fine.is_whole == (False, False, True, False, False, True)
    expected = [CONTEXT - 1 + step / 3 for step in range(1, 7)]
    assert fine.frames_BTCHW[0, :, 0, 0, 0].tolist() == pytest.approx(expected)


def test_steps_that_miss_the_times_are_refused(vgg, context):
    with pytest.raises(ValueError, match="substeps is 2: expected a multiple of the factor 4"):
        predict_fine(vgg, context, 3, 4, 2)
