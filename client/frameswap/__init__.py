"""Thin client of the frameswap Triton ensembles: swap faces in photos and video."""

from frameswap.contract import (
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
from frameswap.read_options import ReadOptions
from frameswap.report import Tally
from frameswap.security import Security
from frameswap.segmented_job import Journaling
from frameswap.sources import Source, average_sources
from frameswap.swapper import FaceSwapper, SwappedFrame

__all__ = [
    "BadFaces",
    "BadFrame",
    "BadOptions",
    "BadSource",
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
    "Placement",
    "ReadOptions",
    "Refinement",
    "RegionFlag",
    "RequestRejected",
    "Security",
    "ServeUnavailable",
    "ServerFault",
    "ServerNotReady",
    "ServerOverloaded",
    "ServerTimeout",
    "ServerUnreachable",
    "SeveralFacesFound",
    "Source",
    "SwapOptions",
    "SwappedFrame",
    "Tally",
    "TransportUnavailable",
    "UnreadableFile",
    "UnwritableFile",
    "Verdict",
    "VideoJob",
    "average_sources",
]
