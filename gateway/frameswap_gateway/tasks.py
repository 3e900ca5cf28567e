"""What a worker can be told to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from frameswap_gateway.looking import describe, look, look_for_faces
from frameswap_gateway.swapping import show_frame, swap_live, swap_photo, swap_video

__all__ = ["TASKS"]

TASKS: Final[Mapping[str, Callable[..., dict[str, Any]]]] = {
    "look": look,
    "faces": look_for_faces,
    "photo": swap_photo,
    "video": swap_video,
    "frame": show_frame,
    "live": swap_live,
    "describe": describe,
}
