"""How large outputs are: in bytes, and in pixels where they have any."""

from dataclasses import dataclass
from typing import Final

from ..utils.av_utils import video_size
from ..utils.image_utils import ImageError, image_info

_ANY_SIZE: Final = 2**62


@dataclass(frozen=True, slots=True)
class Measures:
    """The size of an output; width and height are of a picture or video, in pixels."""

    bytes: int
    width: int | None = None
    height: int | None = None


def measure(data: bytes) -> Measures:
    """Return the size of a file, read from its header."""
    try:
        info = image_info(data, _ANY_SIZE)
    except ImageError:
        return Measures(len(data), *(video_size(data) or (None, None)))
    return Measures(len(data), info.width, info.height)
