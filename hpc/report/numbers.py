"""How the report prints metrics: their names, units, which way is better, and how many digits.

In: metric names of hpc.config.METRICS and of odevid.paper_results. Out: text.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class Metric(NamedTuple):
    label: str
    decimals: int
    better: str
    """higher, lower, or "" where nobody says."""

    @property
    def head(self) -> str:
        """For the head of a column: with an arrow to the better side."""
        return f"{self.label} { ({'higher': '↑', 'lower': '↓'}.get(self.better, '')) }".strip()


KNOWN = {
    "psnr": Metric("PSNR (dB)", 2, "higher"),
    "ssim": Metric("SSIM", 4, "higher"),
    "ssim_svg": Metric("SSIM as SVG", 4, "higher"),
    "lpips": Metric("LPIPS", 4, "lower"),
    "lpips_squeeze": Metric("LPIPS squeeze", 4, "lower"),
    "lpips_vgg": Metric("LPIPS vgg", 4, "lower"),
    "fvd": Metric("FVD", 1, "lower"),
    "centroid": Metric("centroid error (px)", 2, "lower"),
}
METHODS = {
    "best": "best of {samples} samples",
    "single": "one sample (mean over {samples})",
    "reconstruction": "given frames, reconstructed",
    "repeat_last": "last frame repeated",
    "constant_velocity": "constant velocity",
}
MODEL_METHODS = ("best", "single")


def metric(name: str) -> Metric:
    return KNOWN.get(name, Metric(name.replace("_", " "), 3, ""))


def method_label(name: str, samples: int) -> str:
    if name == "best" and samples == 1:
        return "one sample"
    return METHODS.get(name, name.replace("_", " ")).format(samples=samples)


def in_order(names: set[str]) -> list[str]:
    """Metrics as tables show them: the usual ones first."""
    return [name for name in KNOWN if name in names] + sorted(names - KNOWN.keys())


def number(value: float, decimals: int) -> str:
    """Fixed digits, so that a column lines up; infinities and NaN in words."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:,.{decimals}f}".replace("-", "−")


def with_interval(value: float, half_width: float | None, decimals: int) -> str:
    """`16.93 ± 0.07`; the mean alone where there is no interval."""
    if half_width is None:
        return number(value, decimals)
    if not math.isfinite(half_width):
        return f"{number(value, decimals)} ± ?"
    return f"{number(value, decimals)} ± {number(half_width, decimals)}"


def seconds(value: float) -> str:
    """A short time, with three digits."""
    if value < 1e-3:
        return f"{value * 1e6:.3g} µs"
    return f"{value * 1e3:.3g} ms" if value < 1 else f"{value:.3g} s"
