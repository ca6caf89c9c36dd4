"""Moving pictures, for what only motion shows: one figure, drawn anew for each frame, as a small GIF."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Frame = TypeVar("Frame")


@dataclass(frozen=True)
class Gif:
    """A moving picture: as the last line of a notebook's cell it is shown."""

    data: bytes = field(repr=False)  # the file
    alt: str  # what it shows, in words

    def _repr_html_(self) -> str:
        return f'<img alt="{self.alt}" src="data:image/gif;base64,{base64.b64encode(self.data).decode()}">'

    def save(self, path: Path | str) -> None:
        """Write the file."""
        Path(path).write_bytes(self.data)


def animation(
    figure: Figure,
    draw: Callable[[Frame], object],
    frames: Sequence[Frame],
    *,
    alt: str,  # what it shows, in words
    seconds: float = 0.1,  # a frame
    hold: float = 1.5,  # the last frame, in seconds
    colours: int = 32,  # of the whole film; fewer make it smaller
) -> Gif:
    """One frame for each of `frames`: draw(frame) changes the figure, which is then rendered at its own dpi.

    All frames share one palette, that of the first, the middle and the last together. Raises ValueError for no frames.
    """
    from PIL import Image

    if len(frames) == 0:
        raise ValueError("an animation needs at least one frame")
    canvas = FigureCanvasAgg(figure)
    images = []
    for frame in frames:
        draw(frame)
        canvas.draw()
        images.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    palette = Image.fromarray(np.vstack(images[:: max(len(images) // 2, 1)])).quantize(colours)
    pages = [Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    times = [round(1000 * seconds)] * (len(pages) - 1) + [round(1000 * hold)]
    file = io.BytesIO()
    pages[0].save(file, "GIF", save_all=True, append_images=pages[1:], duration=times, loop=0, optimize=False)
    return Gif(file.getvalue(), alt)
