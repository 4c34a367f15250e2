"""Clips from video files: frames spread over the whole clip, brought to one size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...bench.errors import AssetError
from ..image_files import as_square

if TYPE_CHECKING:
    from av import VideoFrame


def read_clips(files: Sequence[Path], frames: int, size: int, shorter: int) -> np.ndarray:
    """uint8 (N, frames, size, size, 3).

    A clip is cut into `frames` equal parts, and the frame in the middle of each is taken (as at test time in Wang et
    al. 2016, Temporal Segment Networks, arXiv 1608.00859); a clip that is too short repeats frames. Its shorter side is
    brought to `shorter` pixels, bicubic, and the square cut from the middle. Raises AssetError naming a file that is
    missing, damaged or without a picture, and where PyAV, which decodes, is not installed.
    """
    clips = np.empty((len(files), frames, size, size, 3), dtype=np.uint8)
    for number, file in enumerate(files):
        seen = _decoded(file)
        for moment, place in enumerate(middles(len(seen), frames)):
            clips[number, moment] = as_square(seen[place].to_image(), size, shorter)
    return clips


def middles(length: int, parts: int) -> np.ndarray:
    """int64 (parts,): the places in the middle of equal parts of `length` places; repeated where these are too few."""
    places: np.ndarray = (2 * np.arange(parts) + 1) * length // (2 * parts)
    return places


def _decoded(file: Path) -> list[VideoFrame]:
    """All frames in the order in which they are shown; containers often misstate their number."""
    try:
        import av
    except ImportError:
        raise AssetError("PyAV, which decodes clips, is not installed: install the extra `video`") from None
    try:
        with av.open(str(file)) as container:
            if not container.streams.video:
                raise AssetError(f"the clip {file} holds no video")
            container.streams.video[0].thread_type = "AUTO"
            frames = list(container.decode(video=0))
    except (av.FFmpegError, OSError) as error:
        raise AssetError(f"the clip {file} cannot be read: {error}") from None
    if not frames:
        raise AssetError(f"the clip {file} holds no frame")
    return frames
