"""Whether the models really answer: Triton may call a model ready whose process is dead.

A small real inference through every model that clients meet, every few seconds. One failure makes
the server not ready, several in a row (or Triton's own word that a model's process is gone) make it
dead. A probe that waits in the queue of a busy server is no failure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

from deploy.settings import Settings, Tls
from deploy.triton_command import KEY_HEADER
from server.probe import probe
from server.repository import Repository, top_models

CALL_TIMEOUT_S: Final = 5.0
GOODBYE_S: Final = 1.0
_DEAD_SIGNS: Final = ("is not healthy", "Stub process")


def local_client(settings: Settings, grpc_port: int) -> triton_grpc.InferenceServerClient:
    """A client of this pod's own server, over TLS where it speaks nothing else."""
    address = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.address, settings.address)
    url = f"{address}:{grpc_port}"
    tls: Tls | None = settings.tls
    if tls is None:
        return triton_grpc.InferenceServerClient(url)
    return triton_grpc.InferenceServerClient(
        url,
        ssl=True,
        root_certificates=str(tls.authority),
        # Its own certificate is what it shows to itself where clients have to show one.
        private_key=str(tls.key) if tls.mutual else None,
        certificate_chain=str(tls.certificate) if tls.mutual else None,
        channel_args=[
            # These replace tritonclient's own.
            ("grpc.max_send_message_length", -1),
            ("grpc.max_receive_message_length", -1),
            ("grpc.ssl_target_name_override", tls.name),
        ],
    )


class Pulse:
    """Probes one server; a thread between `start` and `stop`.

    Args:
        client: of the server.
        key: secret of the calls that are restricted.
        say: called with a sentence when something changes.
    """

    def __init__(
        self,
        settings: Settings,
        repository: Repository,
        client: triton_grpc.InferenceServerClient,
        key: str,
        say: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._configs = repository.configs
        self._client = client
        self._headers = {KEY_HEADER: key}
        self._say = say
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)
        self.failures = 0
        """Probes that failed in a row."""
        self.reason = ""
        """What the last failed probe was told."""

    @property
    def is_dead(self) -> bool:
        return self.failures >= self._settings.failed_probes

    def start(self) -> None:
        """Begin to probe.

        Raises:
            InferenceServerException: the first inference failed: the server is of no use.
        """
        self._probe_all(self._names)
        self._thread.start()

    def stop(self) -> None:
        """No more probes; one that is under way is not waited for longer than it mostly takes."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=GOODBYE_S)

    @property
    def _names(self) -> Sequence[str]:
        return top_models(self._configs)

    def _run(self) -> None:
        while not self._stop.wait(self._settings.probe_interval_s):
            self._look()

    def _look(self) -> None:
        answered = self._answers()
        try:
            self._probe_all(self._names)
        except InferenceServerException as error:
            told = error.message()
            if "Deadline" in told and self._answers() > answered:
                # It works, on so much that a probe waits in the queue.
                return
            if "Exceeds maximum queue size" in told or self._stop.is_set():
                # Its bounded queue is full; or it is being stopped.
                return
            dead = any(sign in told for sign in _DEAD_SIGNS)
            self.reason = told
            self.failures = self._settings.failed_probes if dead else self.failures + 1
            self._say(f"a probe failed ({self.failures}): {told}")
        else:
            if self.failures:
                self._say("probes are answered again")
            self.failures = 0

    def _probe_all(self, names: Sequence[str]) -> None:
        for name in names:
            probe(self._client, self._configs[name], timeout_s=self._settings.probe_timeout_s)

    def _answers(self) -> int:
        """How many requests all models have answered so far."""
        try:
            statistics = self._client.get_inference_statistics(
                headers=self._headers, client_timeout=CALL_TIMEOUT_S
            )
        except InferenceServerException:
            return 0
        return sum(model.inference_stats.success.count for model in statistics.model_stats)
