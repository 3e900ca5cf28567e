"""Persons and steadiness: who becomes whom, in every frame, without a tremble.

The server looks at single frames and remembers nothing. Here its answers are put in order:
`tracks` joins the faces of frames that follow each other, `smoothing` stills them, `casting` says
who becomes whom, `steadiness` places them, and `survey` tells who is in a file.
"""

from frameswap.persons.casting import Casting, Role
from frameswap.persons.following import follow
from frameswap.persons.identity import average_embeddings
from frameswap.persons.one_picture import swap_one
from frameswap.persons.search import Search
from frameswap.persons.sheet import draw_sheet, write_sheet
from frameswap.persons.steadiness import Steadiness
from frameswap.persons.survey import Person, Survey, find_persons, read_survey

__all__ = [
    "Casting",
    "Person",
    "Role",
    "Search",
    "Steadiness",
    "Survey",
    "average_embeddings",
    "draw_sheet",
    "find_persons",
    "follow",
    "read_survey",
    "swap_one",
    "write_sheet",
]
