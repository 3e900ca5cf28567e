"""The embedded server, when the deployment side is installed beside the client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

from frameswap.errors import ServeUnavailable

__all__ = ["EMBEDDED_GROUP", "embedded_server"]

EMBEDDED_GROUP: Final = "frameswap.embedded_server"
"""Entry points of this group name a class with `start`, `stop`, `kept_alive` and `grpc_url`, which
takes the arguments below."""


@contextmanager
def embedded_server(
    repository: Path | None,
    *,
    target: str,
    models: Sequence[str],
    frame_size: tuple[int, int],
    requests_in_flight: int,
    on_start: Callable[[], None],
    on_trouble: Callable[[str], None],
) -> Iterator[str]:
    """Run a server for the time of a job.

    Args:
        repository: the model repository; None takes the deployment side's own.
        frame_size: width and height that the server plans its memory for, pixels.
        on_start: called before the start, which takes seconds.
        on_trouble: gets a sentence when something of the server died, and when it is back.

    Yields:
        The address of its gRPC endpoint.

    Raises:
        ServeUnavailable: it is not installed, or could not start; the text says why.
    """
    found = sorted(entry_points(group=EMBEDDED_GROUP), key=lambda entry: entry.name)
    if not found:
        raise ServeUnavailable(
            "no embedded server is installed beside this client: give the address of a running "
            "one with --server HOST:PORT, or install the whole project from its checkout"
        )
    on_start()
    kind: Any = found[0].load()
    package = found[0].module.partition(".")[0]
    server = kind(
        repository,
        target=target,
        models=models,
        frame_size=frame_size,
        requests_in_flight=requests_in_flight,
    )
    with ExitStack() as stack:
        try:
            server.start()
            stack.callback(server.stop)
            stack.enter_context(server.kept_alive(on_trouble))
        except Exception as error:
            # The deployment side's own errors are sentences for the user; anything else is a bug.
            if type(error).__module__.partition(".")[0] != package:
                raise
            raise ServeUnavailable(str(error)) from error
        yield str(server.grpc_url)
