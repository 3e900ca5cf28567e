"""Thin client of the frameswap Triton ensembles: swap faces in photos and video."""

from frameswap.addresses import Url
from frameswap.contract import (
    AreaFlag,
    ChromaLocation,
    ColorMatrix,
    ColorRange,
    FaceOrder,
    KeepFlag,
    MaskFlag,
    Refinement,
    RegionFlag,
    Verdict,
)
from frameswap.encoders import Encoding
from frameswap.errors import (
    BadFaces,
    BadFrame,
    BadOptions,
    BadSource,
    ContractMismatch,
    FrameswapError,
    NoFaceFound,
    RequestRejected,
    ServerFault,
    ServerNotReady,
    ServerOverloaded,
    ServerTimeout,
    ServerUnreachable,
    ServeUnavailable,
    SeveralFacesFound,
    TransportUnavailable,
    UnreadableFile,
    UnwritableFile,
)
from frameswap.found_faces import FoundFaces, FoundFrame, Placement
from frameswap.job_control import JobStopped
from frameswap.jobs import JobEvent, VideoJob
from frameswap.options import SwapOptions
from frameswap.persons.casting import Casting, Role
from frameswap.persons.identity import average_embeddings
from frameswap.persons.search import Search
from frameswap.persons.steadiness import Steadiness
from frameswap.persons.survey import Person, Survey, find_persons
from frameswap.read_options import ReadOptions
from frameswap.report import Tally
from frameswap.security import Security
from frameswap.segmented_job import Journaling
from frameswap.sources import Source, average_sources
from frameswap.swapper import FaceSwapper, SwappedFrame

__all__ = [
    "AreaFlag",
    "BadFaces",
    "BadFrame",
    "BadOptions",
    "BadSource",
    "Casting",
    "ChromaLocation",
    "ColorMatrix",
    "ColorRange",
    "ContractMismatch",
    "Encoding",
    "FaceOrder",
    "FaceSwapper",
    "FoundFaces",
    "FoundFrame",
    "FrameswapError",
    "JobEvent",
    "JobStopped",
    "Journaling",
    "KeepFlag",
    "MaskFlag",
    "NoFaceFound",
    "Person",
    "Placement",
    "ReadOptions",
    "Refinement",
    "RegionFlag",
    "RequestRejected",
    "Role",
    "Search",
    "Security",
    "ServeUnavailable",
    "ServerFault",
    "ServerNotReady",
    "ServerOverloaded",
    "ServerTimeout",
    "ServerUnreachable",
    "SeveralFacesFound",
    "Source",
    "Steadiness",
    "Survey",
    "SwapOptions",
    "SwappedFrame",
    "Tally",
    "TransportUnavailable",
    "UnreadableFile",
    "UnwritableFile",
    "Url",
    "Verdict",
    "VideoJob",
    "average_embeddings",
    "average_sources",
    "find_persons",
]
