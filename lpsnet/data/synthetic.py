"""Seeded road-like scenes drawn on the fly with exact labels: the embedded data set, no files.

The scenes are made so that each dimension of an architecture has something to gain:
poles and far signs are a pixel or two wide (resolution); road, pavement and verge look exactly alike but for a line along
their edges, so the middle of a strip is known only by what lies far to its side (receptive field, hence depth); walls,
fences and trees differ only in texture, each with several random colours (channels). `results/synthetic/` holds the study
that tells what each dimension gains.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from lpsnet.data.frames import DataError

CLASS_NAMES: Final[tuple[str, ...]] = (
    "sky", "building", "fence", "tree", "road", "pavement", "verge", "car", "pole", "sign", "pedestrian",
)  # fmt: skip
SKY, BUILDING, FENCE, TREE, ROAD, PAVEMENT, VERGE, CAR, POLE, SIGN, PEDESTRIAN = range(len(CLASS_NAMES))
COLOURS: Final[tuple[tuple[int, int, int], ...]] = (
    (70, 130, 180), (110, 70, 60), (170, 140, 130), (60, 120, 50), (110, 60, 110), (230, 60, 220), (150, 220, 120), (0, 0, 150),
    (200, 200, 190), (240, 200, 0), (220, 20, 60),
)  # fmt: skip
"""Of the classes in pictures, not in the scenes."""

EDGE_COLOURS: Final = {ROAD: (240, 240, 240), PAVEMENT: (225, 140, 30), VERGE: (20, 110, 40)}
"""Colour of the thin line inside the edge of each strip of the ground: all that tells one strip from another."""

SPLIT_SIZES: Final = {"train": 320, "val": 64, "test": 64}


class Synthetic:
    """One split of the scenes, drawn at `size` (height, width); frame i of a split is the same wherever it is drawn."""

    class_names = CLASS_NAMES
    colours = COLOURS
    categories: tuple[str, ...] = ()

    def __init__(self, split: str, size: tuple[int, int]) -> None:
        if split not in SPLIT_SIZES:
            raise DataError(f"synthetic has no split {split!r}; there are: {', '.join(SPLIT_SIZES)}")
        self._split = split
        self._size = size

    def __len__(self) -> int:
        return SPLIT_SIZES[self._split]

    def name_of(self, index: int) -> str:
        """Split and number."""
        return f"synthetic {self._split} frame {index}"

    def decode(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """See `Source.decode`."""
        seed = (tuple(SPLIT_SIZES).index(self._split), index)
        return Scene(np.random.default_rng(seed), *self._size).draw()


class Scene:
    """One scene: painted from far to near, so that what is painted last hides what lies behind it."""

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        self.height, self.width = height, width
        self.image = np.zeros((height, width, 3), np.float32)
        self.label = np.zeros((height, width), np.uint8)
        self.horizon = int(height * rng.uniform(0.36, 0.48))
        self.rows, self.columns = np.mgrid[0:height, 0:width].astype(np.float32)

    def draw(self) -> tuple[np.ndarray, np.ndarray]:
        """Image (H, W, 3) and label (H, W), uint8."""
        self._sky()
        self._ground()
        self._backdrop()
        for depth in np.sort(self.rng.uniform(0.04, 1.0, int(self.rng.integers(8, 15)))):
            things = (self._car, self._pole, self._pole, self._pedestrian)
            things[self.rng.integers(len(things))](float(depth))
        self.image *= self.rng.uniform(0.7, 1.15)
        self.image += self.rng.normal(0, 6, self.image.shape).astype(np.float32)
        return np.clip(self.image, 0, 255).astype(np.uint8), self.label

    def _paint(self, mask: np.ndarray, colour: np.ndarray, class_index: int) -> None:
        self.image[mask] = colour[mask] if colour.ndim == 3 else colour
        self.label[mask] = class_index

    def _box(self, top: float, bottom: float, left: float, right: float) -> tuple[slice, slice]:
        """Pixels of a box, at least one pixel each way, clipped to the image."""
        t, b, l, r = round(top), round(bottom), round(left), round(right)
        b, r = max(b, t + 1), max(r, l + 1)
        return slice(max(t, 0), max(b, 0)), slice(max(l, 0), max(r, 0))

    def _fill(self, box: tuple[slice, slice], colour: np.ndarray, class_index: int) -> None:
        self.image[box] = colour
        self.label[box] = class_index

    def _colour(self, low: float = 40, high: float = 210) -> np.ndarray:
        return self.rng.uniform(low, high, 3).astype(np.float32)

    def _sky(self) -> None:
        shade = 130 + 50 * self.rows / self.height
        tint = self.rng.uniform(0.75, 1.0, 3).astype(np.float32)
        self._paint(self.rows < self.horizon, shade[..., None] * tint, SKY)

    def _ground(self) -> None:
        """Strips of road, pavement and verge that run to the vanishing point; only the edge line inside each tells which it is."""
        depth = np.maximum(self.rows - self.horizon, 0) / max(1, self.height - self.horizon)
        below = self.rows >= self.horizon
        vanishing = self.width * self.rng.uniform(0.3, 0.7)
        across = np.where(below, (self.columns - vanishing) / (self.width * np.maximum(depth, 0.02)), 0)
        grain = self.rng.normal(0, 12, (self.height, self.width, 1)).astype(np.float32)
        surface = self._colour(80, 130).mean() + grain
        left, right, before = -np.inf, -self.rng.uniform(0.8, 1.2), -1
        while left < np.inf:
            kind = int(self.rng.choice([c for c in EDGE_COLOURS if c != before]))
            strip = below & (across >= left) & (across < right)
            self._paint(strip, surface, kind)
            self.image[strip & ((across < left + 0.07) | (across >= right - 0.07))] = EDGE_COLOURS[kind]
            left, before = right, kind
            right = left + self.rng.uniform(0.3, 0.75) if left < 1.0 else np.inf

    def _backdrop(self) -> None:
        """A row of walls, fences and trees along the horizon, alike in colour, unlike in texture."""
        x = 0.0
        while x < self.width:
            breadth = self.width * self.rng.uniform(0.07, 0.2)
            if self.rng.random() < 0.75:
                kind = int(self.rng.choice((BUILDING, FENCE, TREE)))
                rise = {BUILDING: (0.35, 0.85), FENCE: (0.1, 0.3), TREE: (0.25, 0.6)}[kind]
                top = self.horizon * (1 - self.rng.uniform(*rise))
                box = self._box(top, self.horizon + 0.03 * self.height, x, min(x + breadth, self.width))
                self._fill(box, self._texture(kind, self.rows[box], self.columns[box]), kind)
            x += breadth

    def _texture(self, kind: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        period = max(4.0, self.height / self.rng.uniform(18, 26))
        if kind == BUILDING:
            pattern = ((rows % period) < period / 2) & ((columns % period) < period / 2)
        elif kind == FENCE:
            pattern = (columns % (period / 2)) < period / 4
        else:
            pattern = self.rng.random(rows.shape) < 0.5
        return np.where(pattern[..., None], self._colour(), self._colour())

    def _spot(self, depth: float) -> tuple[float, float]:
        """Row of the ground and height of a person there, for a nearness of 0 (horizon) to 1 (front)."""
        row = self.horizon + depth * (self.height - self.horizon)
        return row, 0.05 * self.height + 0.45 * self.height * depth

    def _car(self, depth: float) -> None:
        row, person = self._spot(depth)
        tall, wide = 0.75 * person, 1.5 * person
        left = self.width * self.rng.uniform(0.3, 0.7) - wide / 2
        self._fill(self._box(row - tall * 0.6, row, left, left + wide), self._colour(20, 230), CAR)
        self._fill(self._box(row - tall, row - tall * 0.6, left + 0.2 * wide, left + 0.8 * wide), self._colour(20, 60), CAR)
        for start in (0.12, 0.7):
            self._fill(self._box(row - tall * 0.2, row, left + start * wide, left + (start + 0.18) * wide), np.full(3, 20, np.float32), CAR)

    def _pole(self, depth: float) -> None:
        row, person = self._spot(depth)
        x = self.width * self.rng.choice((self.rng.uniform(0.03, 0.3), self.rng.uniform(0.7, 0.97)))
        top = row - 1.9 * person
        self._fill(self._box(top, row, x, x + 0.05 * person), np.full(3, self.rng.uniform(30, 190), np.float32), POLE)
        if self.rng.random() < 0.6:
            half = 0.14 * person
            self._fill(self._box(top, top + 2 * half, x - half, x + half), self._colour(60, 240), SIGN)

    def _pedestrian(self, depth: float) -> None:
        row, person = self._spot(depth)
        x = self.width * self.rng.uniform(0.05, 0.95)
        self._fill(self._box(row - 0.5 * person, row, x - 0.1 * person, x + 0.1 * person), self._colour(20, 120), PEDESTRIAN)
        self._fill(self._box(row - 0.85 * person, row - 0.5 * person, x - 0.14 * person, x + 0.14 * person), self._colour(), PEDESTRIAN)
        self._fill(
            self._box(row - person, row - 0.85 * person, x - 0.07 * person, x + 0.07 * person),
            np.array((205, 165, 140), np.float32),
            PEDESTRIAN,
        )
