"""Random views of a labelled image, quick because everything happens on 8 bits: one warp, one lookup."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from vidseg_core.classes import VOID
from vidseg_core.errors import ConfigError
from vidseg_core.networks.normalisation import MEAN_RGB


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, flip, colour and blur.

    Attributes:
        crop: (height, width) of every view, pixels.
        scale: smallest and largest factor on the image's size; drawn with equal chance for every octave.
        rare_crops: share of views that are laid around a pixel of a class drawn evenly from those in the image, so that
            a class with few pixels is seen as often as one with many.
        color: strength of the changes of brightness, contrast, gamma and saturation, 0 (none) to 1.
        blur: share of views that are blurred.
    """

    crop: tuple[int, int] = (352, 480)
    scale: tuple[float, float] = (0.75, 2.0)
    rare_crops: float = 0.5
    color: float = 0.5
    blur: float = 0.15

    def __post_init__(self):
        if len(self.crop) != 2 or min(self.crop) < 32:
            raise ConfigError(f"crop: expected a height and a width of at least 32 pixels, got {self.crop}")
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise ConfigError(f"scale: expected 0 < smallest <= largest, got {self.scale}")
        for name in ("rare_crops", "color", "blur"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name}: expected 0..1, got {getattr(self, name)}")

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Cut a random view of `crop` size out of an image.

        Args:
            image: H x W x 3, uint8, RGB.
            labels: H x W, uint8.
            rng: draws everything that is random here.

        Returns:
            image (crop x 3, uint8) and labels (crop, uint8; 255 beside the picture).
        """
        matrix = self.view(labels, rng)
        image, labels = self.cut_image(image, matrix), self.cut_labels(labels, matrix)
        return self.change_look(image, rng), labels

    def view(self, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Choose a random view of an image with these labels: 2 x 3, from pixels of the view to pixels of the image."""
        height, width = self.crop
        scale = float(np.exp(rng.uniform(*np.log(self.scale))))
        flip = rng.random() < 0.5
        left, top = (
            _window_start(side * scale, window, center * scale, rng)
            for side, window, center in zip(labels.shape[::-1], (width, height), self._center(labels, rng), strict=True)
        )
        matrix = np.array([[1 / scale, 0, left / scale], [0, 1 / scale, top / scale]])
        if flip:
            matrix[0] = [-1 / scale, 0, (left + width - 1) / scale]
        return matrix

    def cut_image(self, image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Cut the view out of an image: one warp crops, scales and flips."""
        return cv2.warpAffine(
            image, matrix, self.crop[::-1], flags=cv2.WARP_INVERSE_MAP | cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT, borderValue=MEAN_RGB,
        )  # fmt: skip

    def cut_labels(self, labels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        """Cut the view out of its labels; void beside the picture."""
        return cv2.warpAffine(
            labels, matrix, self.crop[::-1], flags=cv2.WARP_INVERSE_MAP | cv2.INTER_NEAREST,
            borderMode=cv2.BORDER_CONSTANT, borderValue=VOID,
        )  # fmt: skip

    def change_look(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change colours and perhaps sharpness; equal states of `rng` change images alike."""
        image = self._recolor(image, rng)
        if rng.random() < self.blur:
            image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.3))
        return image

    def _center(self, labels, rng) -> tuple[float, float]:
        """Choose the point (x, y) around which the view is laid, where it fits."""
        height, width = labels.shape
        if rng.random() < self.rare_crops:
            present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)[:VOID])
            if present.size:
                pixels = np.flatnonzero(labels == rng.choice(present))
                y, x = divmod(int(rng.choice(pixels)), width)
                return float(x), float(y)
        return rng.uniform(0, width), rng.uniform(0, height)

    def _recolor(self, image, rng):
        if not self.color:
            return image
        strength = self.color
        tone = np.linspace(0, 1, 256)[:, None] ** np.exp(rng.uniform(-0.5, 0.5) * strength)  # 256 x 1
        contrast, brightness = 1 + rng.uniform(-0.5, 0.5) * strength, rng.uniform(-0.3, 0.3) * strength
        gains = 1 + rng.uniform(-0.15, 0.15, 3) * strength  # light that is warmer, colder, greener
        table = ((tone - 0.5) * contrast + 0.5 + brightness) * gains  # 256 x 3
        image = cv2.LUT(image, np.clip(table * 255, 0, 255).astype(np.uint8)[None])
        saturation = 1 + rng.uniform(-0.6, 0.6) * strength
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return cv2.addWeighted(image, saturation, grey, 1 - saturation, 0)


def _window_start(side: float, window: int, center: float, rng: np.random.Generator) -> float:
    """Choose the start of a window around `center`: inside 0..side where it fits, else with the whole side in it."""
    if side <= window:
        return rng.uniform(side - window, 0)
    start = center - window * rng.uniform(0.2, 0.8)
    return min(max(start, 0), side - window)
