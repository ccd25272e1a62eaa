"""The one place where pixel values are normalised: `(x - mean) / std` of values 0..255 (Cityscapes' statistics)."""

MEAN_RGB = (73.15, 82.90, 72.30)
STD_RGB = (47.67, 48.49, 47.73)
