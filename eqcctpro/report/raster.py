"""A picture of traces, strokes and words as pixels.

A library for plots takes twice as long for these few things as a network of 200 stations takes
to be picked; see ``docs/performance.md``.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

__all__ = ["Paper", "text_width"]

Float64 = NDArray[np.float64]

_SHADES = 64
"""Shades of grey, and of each of three colours: together what a byte can say."""
_BITS = 2
"""Bits that shades of grey have less than a byte."""
_WHITE = 255
_COMPRESSION = 3


class Paper:
    """White paper; strokes in colours lie over everything grey, stronger ones over weaker ones.

    Parameters
    ----------
    width, height : int
        Pixels.
    colours : sequence of str
        As ``"#RRGGBB"``, three at most; later ones lie over earlier ones.
    """

    def __init__(self, width: int, height: int, colours: Sequence[str]) -> None:
        self._colours = list(colours)
        self._grey = np.full((height, width), _WHITE, dtype=np.uint8)
        self._over = np.zeros((height, width), dtype=np.uint8)
        self._words: list[tuple[float, float, str, float, str]] = []

    def box(self, left: int, right: int, top: int, bottom: int, grey: int) -> None:
        """Fill a rectangle with a shade from 0, black, to 255, white."""
        self._grey[top:bottom, left:right] = grey

    def trace(
        self, left: int, tops: Float64, bottoms: Float64, thickness: float, grey: int
    ) -> None:
        """Draw a line of which the highest and the lowest place in each column are known.

        Parameters
        ----------
        left : int
            The first column.
        tops, bottoms : ndarray of float64, shape (columns,)
            Pixels from the top of the picture; NaN where there is no line.
        thickness : float
        grey : int
        """
        if np.isnan(tops).all():
            return
        tops, bottoms = tops - thickness / 2, bottoms + thickness / 2
        first, last = int(np.nanmin(tops)), int(np.nanmax(bottoms)) + 1
        rows = np.arange(first, last, dtype=np.float64)[:, None]
        # How much of each pixel it covers, so that flat lines do not jump from row to row.
        cover = np.clip(np.minimum(bottoms, rows + 1) - np.maximum(tops, rows), 0.0, 1.0)
        shade = (_WHITE - (_WHITE - grey) * np.nan_to_num(cover)).astype(np.uint8)
        part = self._grey[first:last, left : left + tops.size]
        np.minimum(part, shade, out=part)

    def strokes(
        self,
        colour: str,
        x: NDArray[np.intp],
        tops: NDArray[np.intp],
        bottoms: NDArray[np.intp],
        strengths: Float64,
        width: int = 2,
    ) -> None:
        """Draw upright strokes.

        Parameters
        ----------
        colour : str
            One of the paper's.
        x, tops, bottoms : ndarray of int, shape (strokes,)
            Pixels.
        strengths : ndarray of float64, shape (strokes,)
            From 0, which is not seen, to 1.
        width : int
        """
        first = _SHADES * (1 + self._colours.index(colour))
        shades = first + np.rint(strengths * (_SHADES - 1)).astype(np.intp)
        lefts = np.maximum(x - width // 2, 0)
        columns = zip(lefts.tolist(), tops.tolist(), bottoms.tolist(), shades.tolist(), strict=True)
        for left, top, bottom, shade in columns:
            part = self._over[top:bottom, left : left + width]
            np.maximum(part, shade, out=part)

    def write(self, x: float, y: float, text: str, size: float, anchor: str = "left") -> None:
        """Put a text on the paper.

        Parameters
        ----------
        x, y : float
            Pixels; `y` of the middle of its height.
        text : str
        size : float
            Pixels.
        anchor : {"left", "middle", "right"}
            What of it lies at `x`.
        """
        self._words.append((x, y, text, size, f"{anchor[0]}m"))

    def png(self, software: str) -> bytes:
        """The picture as the bytes of a PNG file.

        Parameters
        ----------
        software : str
            What the file says that it was made by.
        """
        from PIL import Image, ImageDraw
        from PIL.PngImagePlugin import PngInfo

        picture = Image.fromarray(self._grey)
        draw = ImageDraw.Draw(picture)
        for x, y, text, size, anchor in self._words:
            draw.text((x, y), text, fill=0, font=_font(size), anchor=anchor)
        shades = np.asarray(picture) >> _BITS
        picture = Image.fromarray(np.where(self._over, self._over, shades))
        picture.putpalette(self._palette().tobytes())
        info = PngInfo()
        info.add_text("Software", software)
        file = io.BytesIO()
        picture.save(file, "png", pnginfo=info, compress_level=_COMPRESSION)
        return file.getvalue()

    def _palette(self) -> NDArray[np.uint8]:
        """Red, green and blue of each byte."""
        depth = np.linspace(0.0, 1.0, _SHADES)[:, None]
        colours = [np.array(tuple(bytes.fromhex(colour[1:]))) for colour in self._colours]
        shades = [_WHITE * depth * np.ones(3), *(_WHITE + (c - _WHITE) * depth for c in colours)]
        return np.rint(np.concatenate(shades)).astype(np.uint8)


@cache
def _font(size: float) -> FreeTypeFont | ImageFont:
    """The font that comes with Pillow, so that pictures are the same on all machines."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def text_width(text: str, size: float) -> float:
    """Pixels that a text is wide."""
    return float(_font(size).getlength(text))
