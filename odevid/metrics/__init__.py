"""Scores of predicted frames, and the functions that compute them: PSNR, SSIM, LPIPS, FVD.

In: float frames in [0, 1], axes `...TCHW` such as BTCHW. Out: one value per frame (`...T`); FVD one of two sets.

    from odevid.metrics import fvd, lpips, psnr, ssim, ssim_svg

    psnr(predicted_BTCHW, true_BTCHW).mean()

These need no run, no config and no cluster. Each lives in the module of its name, beside what a loop over many samples
uses instead: `psnr.PsnrReference`, `ssim.SsimReference`, `ssim_svg.SsimSvgReference`, `lpips.LPIPS.against`,
`fvd.FrechetVideoDistance`; best of N samples is `best_of.BestOf`, intervals are in `interval`.

The names of the package are the functions, though modules are named alike: so they are imported here at once (which
costs an import of torch), and a module is reached as `from odevid.metrics.psnr import PsnrReference`.

Legend: N samples, B videos, T time, C channels, H rows, W columns.
"""

from odevid.metrics.fvd import fvd
from odevid.metrics.lpips import lpips
from odevid.metrics.psnr import psnr
from odevid.metrics.ssim import ssim
from odevid.metrics.ssim_svg import ssim_svg

__all__ = ["fvd", "lpips", "psnr", "ssim", "ssim_svg"]
