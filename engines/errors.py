"""What can go wrong between a graph and a plan. Each message is one sentence for a person.

EngineError                 root: `build_engines.py` prints it and exits with 1
|- CompilerMissing          neither TensorRT package can be imported
|- UnsupportedDevice        the compiler cannot make a plan for that compute capability
|- CompileError             the graph was refused, or compiling failed
|  '- UnsupportedOperator   the parser refused one node, which the message names
|- CompileCancelled         the progress callback asked to stop
|- ProfileError             an impossible profile, or a graph that does not fit it
|- MemoryLimitExceeded      the plan needs more GPU memory than it was allowed
|- PrecisionError           the graph cannot be typed as asked
|- FidelityError            the typed graph strays too far from fp32
|- FramesError              the frames to check with cannot be read, or show nothing to check
|- DeploymentError          a name that is not known, or a combination that cannot work
|- WeightsUnavailable       a weight file is not here, and may or can not be fetched
|- ManifestError            what lies beside a built file is no manifest of this version
|- RepositoryUnwritable     the model repository cannot be written
'- CacheError               the cache folder cannot be used at all
"""

from __future__ import annotations


class EngineError(Exception):
    """Root of everything that building engines reports to a person."""


class CompilerMissing(EngineError):
    """Neither TensorRT package can be imported."""


class UnsupportedDevice(EngineError):
    """The compiler cannot make a plan for the compute capability asked for."""


class CompileError(EngineError):
    """The graph was refused, or compiling it failed."""


class UnsupportedOperator(CompileError):
    """The parser refused one node; the message names the node and its operator."""


class CompileCancelled(EngineError):
    """The progress callback asked the compiler to stop."""


class ProfileError(EngineError):
    """An impossible profile, or a graph that does not fit its profile."""


class MemoryLimitExceeded(EngineError):
    """The plan needs more GPU memory than it was allowed."""


class PrecisionError(EngineError):
    """The graph cannot be typed as asked."""


class FidelityError(EngineError):
    """The typed graph strays further from fp32 than its limits allow."""


class FramesError(EngineError):
    """The frames to check with cannot be read, or show nothing to check."""


class DeploymentError(EngineError):
    """A name that is not known, or a combination that cannot work."""


class WeightsUnavailable(EngineError):
    """A weight file is not here, and may or can not be fetched."""


class ManifestError(EngineError):
    """There is no manifest beside a built file, or it is not one of this version."""


class RepositoryUnwritable(EngineError):
    """The model repository cannot be written."""


class CacheError(EngineError):
    """The cache folder cannot be used at all."""
