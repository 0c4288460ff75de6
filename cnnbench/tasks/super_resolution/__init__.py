"""Super-resolution. The metrics alone: reading them imports no torch.

All but the PSNR on RGB are the field's: on Y of BT.601 (16..235), pixels rounded to 8 bits, `scale` pixels of the
border left out, the mean over the images of each image's own. Bicubic interpolation is measured beside the net, always.
"""

from cnnbench.tasks.metric import Metric

PSNR = Metric("psnr_y", "PSNR", "dB", lower_is_better=False)
SSIM = Metric("ssim_y", "SSIM", lower_is_better=False, decimals=4)
BICUBIC_PSNR = Metric("bicubic_psnr_y", "bicubic", "dB", lower_is_better=False, beside="psnr_y")
BICUBIC_SSIM = Metric("bicubic_ssim_y", "bicubic SSIM", lower_is_better=False, decimals=4, beside="ssim_y")
PSNR_RGB = Metric("psnr_rgb", "PSNR on RGB", "dB", lower_is_better=False)  # of colour nets, over all pixels
BICUBIC_RGB = Metric("bicubic_psnr_rgb", "bicubic on RGB", "dB", lower_is_better=False, beside="psnr_rgb")
CONSISTENCY = Metric("consistency", "consistency", "dB", lower_is_better=False)  # made small again, against the input
METRICS = (PSNR, BICUBIC_PSNR, SSIM, BICUBIC_SSIM, PSNR_RGB, BICUBIC_RGB, CONSISTENCY)
