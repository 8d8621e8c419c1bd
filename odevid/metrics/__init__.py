"""Scores of predicted frames: PSNR, SSIM, LPIPS, centroids, best of N samples, confidence intervals.

In: float frames in [0, 1], axes `...TCHW`. Out: one value per frame (`...T`), and what is averaged from them.
Each module is imported by its own name (`from odevid.metrics.psnr import psnr`): importing this package costs nothing.
"""
