"""Thin client of the frameswap Triton ensembles: swap faces in photos and video."""

from frameswap.contract import ChromaLocation, ColorMatrix, ColorRange, FaceOrder
from frameswap.errors import (
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
from frameswap.options import SwapOptions
from frameswap.security import Security
from frameswap.sources import Source, average_sources
from frameswap.swapper import FaceSwapper, SwappedFrame

__all__ = [
    "BadFrame",
    "BadOptions",
    "BadSource",
    "ChromaLocation",
    "ColorMatrix",
    "ColorRange",
    "ContractMismatch",
    "FaceOrder",
    "FaceSwapper",
    "FrameswapError",
    "NoFaceFound",
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
    "TransportUnavailable",
    "UnreadableFile",
    "UnwritableFile",
    "average_sources",
]
