"""Triton's own Python client, to a server of this machine."""

from __future__ import annotations

import tritonclient.grpc as triton_grpc

CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # The machine's proxy is for other machines, and knows no sockets.
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
    # A server listens when its models are loaded. gRPC's own pauses between two tries grow to two
    # minutes: one that took three minutes to load was then found after five.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
)


def open_client(url: str) -> triton_grpc.InferenceServerClient:
    """Connect to a server of this machine, whatever proxy the environment names."""
    return triton_grpc.InferenceServerClient(url, channel_args=list(CHANNEL_OPTIONS))
