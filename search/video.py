"""Videos in and out, through PyAV where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from lpsnet.errors import UserError

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")


_OPTIONS = {"format_whitelist": "mov,mp4,m4a,3gp,3g2,mj2,avi,matroska,webm", "protocol_whitelist": "file"}
"""What is read: FFmpeg would take a list of other files, or of addresses, for a video as well."""


def can_read_videos() -> bool:
    """Whether PyAV is installed."""
    return find_spec("av") is not None


def _av() -> Any:
    try:
        import av
    except ImportError:
        raise UserError("videos need PyAV: pip install 'lps-search[video]' brings it; or give a folder of images") from None
    return av


class read_video:  # noqa: N801 - used as a function
    """The frames of a video as RGB images (H, W, 3), uint8; to be used in a `with` statement.

    Raises:
        UserError: PyAV is missing, or the file is no video or damaged.
    """

    def __init__(self, path: Path) -> None:
        self._av, self._path = _av(), path
        try:
            self._container = self._av.open(str(path), options=_OPTIONS)
            self._stream = self._container.streams.video[0]
        except (self._av.error.FFmpegError, IndexError, ValueError) as error:
            raise UserError(f"{path} cannot be read as a video: {error}") from error
        self.rate = Fraction(self._stream.average_rate or 25)
        self.count = int(self._stream.frames)

    def __iter__(self) -> Iterator[np.ndarray]:
        try:
            for frame in self._container.decode(self._stream):
                yield frame.to_ndarray(format="rgb24")
        except (self._av.error.FFmpegError, ValueError, MemoryError) as error:
            raise UserError(f"{self._path} cannot be read to its end: {error}") from error

    def __enter__(self) -> read_video:
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()


class VideoWriter:
    """Writes RGB images of one size as an MP4; to be used in a `with` statement."""

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._container = _av().open(str(path), "w")
        self._stream = self._container.add_stream("mpeg4", rate=rate)
        self._stream.pix_fmt = "yuv420p"
        self._stream.bit_rate = 8_000_000
        self._sized = False

    def add(self, image: np.ndarray) -> None:
        """Append a frame; a last row or column that an MP4 cannot hold is left out."""
        image = np.ascontiguousarray(image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2])
        if not self._sized:
            self._stream.height, self._stream.width = image.shape[:2]
            self._sized = True
        for packet in self._stream.encode(_av().VideoFrame.from_ndarray(image, format="rgb24")):
            self._container.mux(packet)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._sized:
            for packet in self._stream.encode():
                self._container.mux(packet)
        self._container.close()
