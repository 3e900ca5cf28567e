"""Flags of `frameswap swap` that say who becomes whom, and how faces are followed."""

from __future__ import annotations

from argparse import Action, ArgumentTypeError
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from frameswap.contract import FaceOrder
from frameswap.errors import BadOptions, FrameswapError, UnreadableFile
from frameswap.face_flags import ORDERS
from frameswap.file_kinds import check_source_kind
from frameswap.persons.casting import Casting, Role
from frameswap.persons.identity import average_embeddings
from frameswap.persons.search import Search
from frameswap.persons.steadiness import Steadiness
from frameswap.persons.survey import read_survey
from frameswap.photo import is_photo, read_photo
from frameswap.swap_job import encode_sources
from frameswap.swapper import FaceSwapper

if TYPE_CHECKING:
    from argparse import ArgumentParser, Namespace

__all__ = [
    "CastPhotos",
    "add_person_flags",
    "check_person_flags",
    "knows_persons",
    "read_cast",
    "steadiness",
]

Photos = list[tuple[Path, NDArray[np.uint8]]]


@dataclass(frozen=True)
class _Swap:
    """`--swap PERSON=PHOTO`: who is replaced, as it was typed, and by whom."""

    person: str
    photo: Path


def swap_pair(text: str) -> _Swap:
    """PERSON=PHOTO, where either name may have a `=` of its own."""
    cuts = [place for place, letter in enumerate(text) if letter == "=" and place]
    pairs = [_Swap(text[:place], Path(text[place + 1 :])) for place in cuts if text[place + 1 :]]
    there = [pair for pair in pairs if pair.photo.exists()] if len(pairs) > 1 else pairs
    if len(there) != 1:
        raise ArgumentTypeError(
            f"must be PERSON=PHOTO, for example anna.png=bert.png or 2=bert.png, not {text!r}"
        )
    return there[0]


class _Assign(Action):
    """Takes ORDER PHOTO [PHOTO ...]."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        words = [str(value) for value in values or ()]
        if len(words) < 2 or words[0] not in ORDERS:
            parser.error(
                f"argument --assign: must be an order and a photo for each person, and the orders "
                f"are {', '.join(ORDERS)}, not {' '.join(words)!r}"
            )
        setattr(namespace, self.dest, (words[0], [Path(word) for word in words[1:]]))


def add_person_flags(parser: ArgumentParser) -> None:
    """Add the groups `persons` and `steadiness`."""
    group = parser.add_argument_group("persons")
    group.add_argument(
        "--swap", type=swap_pair, action="append", metavar="PERSON=PHOTO",
        help="who becomes whom, instead of --source; again for each person. PERSON is a photo, a "
        "folder of photos of one person, or a number of --persons; PHOTO may be a folder, too",
    )  # fmt: skip
    group.add_argument(
        "--only", metavar="PERSON", help="give --source to this person and to nobody else"
    )
    group.add_argument(
        "--assign", action=_Assign, nargs="+", metavar=("ORDER", "PHOTO"),
        help="the first person in an order (left-to-right, for one) gets the first photo, the next "
        "the next, and each keeps it; orders as for --source-face",
    )  # fmt: skip
    group.add_argument(
        "--persons", type=Path, metavar="FILE.json",
        help="the persons of the file, numbered, as `frameswap faces` wrote them",
    )  # fmt: skip
    group = parser.add_argument_group("steadiness of a video")
    group.add_argument(
        "--steady", choices=("on", "off"), default="on",
        help="follow faces from frame to frame: no tremble, no drop-outs, who is who; or swap each "
        "frame by itself",
    )  # fmt: skip
    group.add_argument(
        "--search", choices=[each.value for each in Search],
        help="look once more whether new faces are upright; or for turned faces, small ones, or "
        "both, where nobody is seen, too, which takes time (default: upright for a video, turned "
        "for a photo and for --at)",
    )  # fmt: skip


def steadiness(arguments: Namespace) -> Steadiness | None:
    """How faces are followed, by the flags; None: they are not."""
    if arguments.steady == "off":
        return None
    if arguments.search is None:
        return Steadiness()
    return Steadiness(search=Search(arguments.search))


def picture_search(arguments: Namespace) -> Search:
    """What is looked for in a photo, or in one frame, by the flags.

    A few looks more cost one picture little, and a face that lies would be swapped wrongly.
    """
    if arguments.search is not None:
        return Search(arguments.search)
    return Search.TURNED if arguments.steady == "on" else Search.OFF


def knows_persons(arguments: Namespace) -> bool:
    """Whether the flags name persons."""
    return bool(arguments.swap or arguments.only is not None or arguments.assign)


def check_person_flags(arguments: Namespace) -> None:
    """Raise BadOptions for flags that contradict each other."""
    ways = {
        "--source": arguments.source, "--swap": arguments.swap, "--assign": arguments.assign,
    }  # fmt: skip
    given = [name for name, value in ways.items() if value]
    if len(given) != 1:
        came = " and ".join(given) if given else "none of them"
        raise BadOptions(f"one of --source, --swap and --assign says whose faces are put in, not "
                         f"{came}")
    if arguments.only is not None and given != ["--source"]:
        raise BadOptions("--only says who is given the --source: it goes with that alone")
    if arguments.faces != 1 and knows_persons(arguments):
        raise BadOptions("--faces counts faces without names: it does not go with --only, --swap "
                         "or --assign")
    if arguments.steady == "off" and arguments.search not in (None, Search.OFF.value):
        raise BadOptions("--search is for faces that are followed: it does not go with --steady "
                         "off")
    numbers = [each for each in _persons(arguments) if each.isascii() and each.isdecimal()]
    if numbers and arguments.persons is None:
        raise BadOptions(
            f"person {numbers[0]} is a number of a sheet: name its file with --persons (`frameswap "
            f"faces` makes one)"
        )


def _persons(arguments: Namespace) -> list[str]:
    only = [] if arguments.only is None else [arguments.only]
    return [*only, *(pair.person for pair in arguments.swap or ())]


@dataclass(frozen=True, eq=False)
class CastPhotos:
    """Photos of everybody that the flags name, read, and not yet encoded.

    sources: photos of each person who is put in. references: for each, who is replaced: photos, an
    embedding (E,), or None.
    """

    sources: tuple[Photos, ...]
    references: tuple[Photos | NDArray[np.float32] | None, ...]
    order: FaceOrder
    remembers: bool = False
    faces: int = 1

    def encode(
        self, swapper: FaceSwapper, *, face: FaceOrder | None, score_threshold: float | None
    ) -> Casting:
        """The casting, for the server's swapper.

        Args:
            face: of a photo that has several.

        Raises:
            FrameswapError: a photo without a face, or with too many.
        """
        roles = []
        for photos, reference in zip(self.sources, self.references, strict=True):
            source = encode_sources(swapper, photos, face=face, score_threshold=score_threshold)
            if isinstance(reference, list):
                reference = _embed(swapper, reference, face, score_threshold)
            roles.append(Role(source, reference))
        return Casting(tuple(roles) * self.faces, self.order, self.remembers)


def _embed(
    swapper: FaceSwapper, photos: Photos, face: FaceOrder | None, score_threshold: float | None
) -> NDArray[np.float32]:
    seen = []
    for path, image in photos:
        try:
            seen.append(swapper.embed(image, face=face, score_threshold=score_threshold))
        except FrameswapError as error:
            raise type(error)(f"{path}: {error}") from error
    return average_embeddings(seen)


def read_cast(arguments: Namespace) -> CastPhotos:
    """Read all that the flags name.

    Raises:
        UnreadableFile: a photo, or the sheet of persons, cannot be read.
    """
    order = ORDERS[arguments.face_order]
    if arguments.assign:
        name, paths = arguments.assign
        sources = tuple(_read_person(path) for path in paths)
        return CastPhotos(sources, (None,) * len(sources), ORDERS[name], remembers=True)
    if arguments.swap:
        # Several photos for one person are averaged.
        by_person: dict[str, Photos] = {}
        for pair in arguments.swap:
            by_person.setdefault(pair.person, []).extend(_read_person(pair.photo))
        references = tuple(_read_reference(arguments, person) for person in by_person)
        return CastPhotos(tuple(by_person.values()), references, order)
    photos = [_read_photo(path) for path in arguments.source]
    if arguments.only is not None:
        return CastPhotos((photos,), (_read_reference(arguments, arguments.only),), order)
    return CastPhotos((photos,), (None,), order, faces=int(arguments.faces))


def _read_reference(arguments: Namespace, person: str) -> Photos | NDArray[np.float32]:
    if not (person.isascii() and person.isdecimal()):
        return _read_person(Path(person))
    known = {each.number: each for each in read_survey(arguments.persons).persons}
    if int(person) not in known:
        numbers = ", ".join(str(number) for number in known) or "nobody"
        raise UnreadableFile(f"{arguments.persons} has no person {person}: it has {numbers}")
    return known[int(person)].embedding


def _read_person(path: Path) -> Photos:
    """A photo, or all photos of a folder, by name."""
    if not path.is_dir():
        return [_read_photo(path)]
    paths = [each for each in sorted(path.iterdir()) if each.is_file() and is_photo(each)]
    if not paths:
        raise UnreadableFile(f"{path} is a folder without a photo: name one with a person's photos")
    return [_read_photo(each) for each in paths]


def _read_photo(path: Path) -> tuple[Path, NDArray[np.uint8]]:
    check_source_kind(path)
    return path, read_photo(path)
