"""What can go wrong around the embedded server; each error is one sentence for the user.

    ServerError
    ├── DistributionError   the server's files cannot be had or do not fit this machine
    ├── RepositoryError     the model repository lacks something: a model, a target, a file
    ├── PortError           an address or port cannot be listened on
    ├── StartError          the server did not become ready
    │   └── MpsError        NVIDIA's Multi-Process Service was asked for and cannot be had
    └── ServerStoppedError  it was ready and is not any more

A message is one sentence without a full stop, as the client's are.
"""


class ServerError(Exception):
    """Root of the server side's errors; its text is one sentence."""


class DistributionError(ServerError):
    """The server's files cannot be had, or do not fit this machine or Python."""


class RepositoryError(ServerError):
    """The model repository lacks a model, a target or a file."""


class PortError(ServerError):
    """An address or port cannot be listened on."""


class StartError(ServerError):
    """The server did not become ready."""


class MpsError(StartError):
    """NVIDIA's Multi-Process Service was asked for and cannot be had."""


class ServerStoppedError(ServerError):
    """The server was ready and does not run any more."""
