"""What the images are normalised by. No torch: exports and descriptions need the numbers only."""

from __future__ import annotations

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation a channel (RGB in 0..1) of ImageNet, as in the paper's port."""
