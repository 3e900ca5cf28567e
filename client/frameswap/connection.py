"""One gRPC channel to a Triton server: readiness, what a model says of itself, inference calls."""

from __future__ import annotations

import ipaddress
import os
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import grpc
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

from frameswap.errors import (
    ContractMismatch,
    FrameswapError,
    ServerNotReady,
    ServerTimeout,
    ServerUnreachable,
    from_rpc_error,
)
from frameswap.interrupts import signals_held_back
from frameswap.keys import SHARED_MEMORY_KEY, read_key
from frameswap.security import Security
from frameswap.wire import INFER_METHOD, ResponseReader

__all__ = ["CLOSING_S", "Connection", "ModelDescription", "PendingCall", "check_address"]

CLOSING_S: Final = 5.0
"""How long a server that does not answer may hold up somebody who is leaving, in seconds."""

_CHANNEL_OPTIONS: Final = (
    # gRPC's default of 4 MB is less than one 1080p BGR frame.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A channel of its own is a TCP connection of its own: two swappers do not share one.
    ("grpc.use_local_subchannel_pool", 1),
)
_PROXY_VARIABLES: Final = ("grpc_proxy", "https_proxy", "http_proxy")
"""gRPC takes the first of these that is set, for every address that no_proxy does not name."""
_SCHEME: Final = re.compile(r"^(dns:///|ipv[46]:)")
_RECONNECT_OPTIONS: Final = (
    # gRPC waits up to 120 s between attempts; a server on the same network is back sooner.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


@dataclass(frozen=True)
class ModelDescription:
    """What a deployed model says of itself; dims are without the batch axis, -1 where free."""

    name: str
    inputs: dict[str, tuple[str, tuple[int, ...]]]
    outputs: dict[str, tuple[str, tuple[int, ...]]]
    max_batch_size: int
    parameters: dict[str, str]


class PendingCall:
    """One call in flight.

    Args:
        start: starts it; returns gRPC's future.
        doing: for error texts.
    """

    def __init__(self, start: Callable[[], Any], connection: Connection, doing: str) -> None:
        self._connection = connection
        self._doing = doing
        self._is_over = False
        # A bare lock, taken until the call is over: Ctrl-C may interrupt a wait for it and does it
        # no harm. What gRPC, or threading.Event, waits with would be left taken.
        self._under_way = threading.Lock()
        self._under_way.acquire()
        self._answer: Any = None
        self._failure: tuple[Any, Exception] | None = None
        with signals_held_back:
            self._future = start()
            self._future.add_done_callback(self._end)

    def result(self) -> Any:
        """Wait for the answer.

        Raises:
            FrameswapError: how the call failed (`errors.STATUS_ERRORS`).
        """
        if not self._is_over:
            with self._under_way:
                pass
        if self._failure is not None:
            future, error = self._failure
            with signals_held_back:
                raise self._connection.translate(future, self._doing) from error
        return self._answer

    def wait(self, patience_s: float) -> bool:
        """Wait at most so many seconds; whether the call is over."""
        if not self._is_over and patience_s > 0 and self._under_way.acquire(timeout=patience_s):
            self._under_way.release()
        return self._is_over

    def cancel(self) -> None:
        """Tell the server that the answer is not wanted any more."""
        with signals_held_back:
            future = self._future
            if future is not None:
                future.cancel()
            del future

    def _end(self, future: Any) -> None:
        # Mostly in a thread of gRPC's, where no signal is handled: what takes gRPC's locks is done
        # here, and whoever waits takes none. Letting go of the future takes one, too.
        try:
            self._answer = future.result()
        except (grpc.RpcError, grpc.FutureCancelledError) as error:
            # Most are the future itself: with its traceback it would hold this very call, and what
            # that holds, until the next collection of garbage.
            error.with_traceback(None)
            self._failure = future, error
        finally:
            self._future = None
            self._is_over = True
            self._under_way.release()


class Connection:
    """A channel to one address.

    Args:
        address: HOST:PORT of the server's gRPC endpoint, or another of gRPC's targets.
        timeout_s: deadline of every single call, in seconds.
        security: TLS and token; None is neither.
        name: of the host, where `address` is a number behind it: what a certificate is held to.

    Attributes:
        reader: takes the answers apart.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float,
        security: Security | None = None,
        name: str | None = None,
    ) -> None:
        self.address = check_address(address)
        self.timeout_s = timeout_s
        self.reader = ResponseReader()
        options: list[tuple[str, Any]] = [*_CHANNEL_OPTIONS, *_RECONNECT_OPTIONS]
        self._is_local = is_loopback(_SCHEME.sub("", address))
        if self._is_local:
            # A proxy is for other machines: it would look for this address on its own.
            options.append(("grpc.enable_http_proxy", 0))
        security = security or Security()
        self._token = security.metadata(address, is_local=self._is_local)
        credentials = security.credentials()
        if credentials is None:
            self._channel = grpc.insecure_channel(address, options=options)
        else:
            held_to = security.name or name
            if held_to is not None:
                options.append(("grpc.ssl_target_name_override", held_to))
            self._channel = grpc.secure_channel(address, credentials, options=options)
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)
        # No serialisers: requests and responses are bytes here (see frameswap.wire).
        self._infer = self._channel.unary_unary(INFER_METHOD)

    def hurry(self) -> None:
        """Give the calls that are still to come their own time: nobody waits for their answers."""
        self.timeout_s = CLOSING_S

    def close(self) -> None:
        with signals_held_back:
            self._channel.close()

    def translate(self, error: grpc.RpcError, doing: str) -> FrameswapError:
        """Turn an error of the gRPC library into ours."""
        ours = from_rpc_error(error, address=self.address, doing=doing, timeout_s=self.timeout_s)
        proxy = None if self._is_local else _proxy()
        if proxy is not None and isinstance(ours, ServerUnreachable | ServerTimeout):
            return type(ours)(f"{ours}; gRPC goes through {proxy}")
        return ours

    def submit(self, message: bytes, *, doing: str) -> PendingCall:
        """Send a serialised ModelInferRequest; its answer is a serialised ModelInferResponse."""
        return PendingCall(
            lambda: self._infer.future(message, timeout=self.timeout_s, metadata=self._token),
            self,
            doing,
        )

    def call(self, method: str, request: Any, *, doing: str) -> Any:
        """Call one of the service's other methods and wait.

        Raises:
            FrameswapError: how the call failed.
        """
        return self.start(method, request, doing=doing, timeout_s=self.timeout_s).result()

    def start(self, method: str, request: Any, *, doing: str, timeout_s: float) -> PendingCall:
        """Call one of the service's other methods; whoever wants the answer waits for it."""
        start = getattr(self._stub, method).future
        metadata = self._token + (self._key() if "SharedMemory" in method else ())
        return PendingCall(
            lambda: start(request, timeout=timeout_s, metadata=metadata), self, doing
        )

    def ask_ready(self, *, timeout_s: float) -> PendingCall:
        """Ask whether the server is ready, without waiting; the answer has `ready`."""
        request = service_pb2.ServerReadyRequest()
        return self.start("ServerReady", request, doing="at connecting", timeout_s=timeout_s)

    def _key(self) -> tuple[tuple[str, str], ...]:
        """What shared memory takes at an embedded server of this user that listens on TCP."""
        port = self.address.rpartition(":")[2]
        if not self._is_local or self.address.startswith("unix:") or not port.isdigit():
            return ()
        key = read_key(int(port))
        return ((f"triton-grpc-protocol-{SHARED_MEMORY_KEY}", key),) if key else ()

    def check_ready(self) -> None:
        """Raise unless the server says that it, and all its models, are ready.

        Raises:
            ServerUnreachable, ServerTimeout: nothing answers.
            ServerNotReady: it answers no.
        """
        answer = self.call("ServerReady", service_pb2.ServerReadyRequest(), doing="at connecting")
        if not answer.ready:
            raise ServerNotReady(
                f"the server at {self.address} is up but not ready: its models are still loading "
                f"or one of them failed; try again, or look at the server's log"
            )

    def describe(self, model: str) -> ModelDescription | None:
        """Ask the server for a model's configuration; None when it has no such model.

        Raises:
            ServerNotReady: the model is there but not ready.
            FrameswapError: the call failed.
        """
        request = service_pb2.ModelConfigRequest(name=model)
        try:
            config = self.call("ModelConfig", request, doing="while reading its models").config
        except ContractMismatch:
            return None
        except FrameswapError as error:
            # Triton answers UNAVAILABLE, not NOT_FOUND, for a model that was unloaded or failed.
            if "unknown model" in str(error).lower():
                return None
            raise
        ready = self.call(
            "ModelReady",
            service_pb2.ModelReadyRequest(name=model),
            doing="while reading its models",
        )
        if not ready.ready:
            raise ServerNotReady(
                f"the server at {self.address} has the model {model} but it is not ready: "
                f"try again, or look at the server's log"
            )
        return _read_config(config)


def _read_config(config: Any) -> ModelDescription:
    def signature(tensors: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
        return {
            tensor.name: (
                model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_"),
                tuple(tensor.dims),
            )
            for tensor in tensors
        }

    return ModelDescription(
        name=config.name,
        inputs=signature(config.input),
        outputs=signature(config.output),
        max_batch_size=config.max_batch_size,
        parameters={key: value.string_value for key, value in config.parameters.items()},
    )


def check_address(address: str) -> str:
    scheme, separator, _ = address.partition("://")
    if separator and scheme in ("http", "https", "grpc"):
        raise ServerUnreachable(
            f"a server's address is HOST:PORT of its gRPC endpoint, without {scheme}://: "
            f"{address!r} was given"
        )
    if not separator and not address.startswith(("unix:", "dns:", "ipv4:", "ipv6:")):
        host, colon, port = address.rpartition(":")
        if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
            raise ServerUnreachable(
                f"a server's address is HOST:PORT of its gRPC endpoint, such as localhost:8001: "
                f"{address!r} was given"
            )
    return address


def _proxy() -> str | None:
    """The proxy that gRPC goes through, for error texts: without its password."""
    for name in _PROXY_VARIABLES:
        value = os.environ.get(name)
        if value:
            return f"the proxy {value.rpartition('@')[2].rpartition('//')[2]} that {name} names"
    return None


def is_loopback(address: str) -> bool:
    """Whether an address can only mean this machine."""
    if address.startswith("unix:"):
        return True
    host = address.rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
