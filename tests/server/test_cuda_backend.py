"""The onnxruntime backend on a CUDA device: the CPU's tests once more, with device tensors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from server.launcher import EmbeddedServer
from tests.server.asking import Asker
from tests.server.test_onnxruntime_backend import (  # noqa: F401
    test_a_bad_request_of_a_batch_fails_alone,
    test_a_client_batch_is_answered_as_one,
    test_a_face_count_out_of_bounds_is_refused_with_a_sentence,
    test_a_frame_at_the_bounds_is_served,
    test_a_frame_out_of_bounds_is_refused_with_a_sentence,
    test_a_nan_score_reaches_the_network_and_shows_in_the_answer,
    test_a_passthrough_output_is_the_input_byte_for_byte,
    test_an_unknown_option_is_refused_with_a_sentence,
    test_each_row_of_a_batch_keeps_its_own_options,
    test_face_rows_are_computed_and_empty_slots_are_zero,
    test_face_rows_of_a_client_batch_are_kept_apart,
    test_more_face_rows_than_one_run_takes_are_run_in_parts,
    test_nan_in_a_source_is_refused_and_nan_in_a_crop_is_not,
    test_one_request_comes_back_right,
    test_requests_of_different_face_counts_form_one_batch,
    test_requests_of_one_size_form_batches_and_come_apart_again,
    test_sizes_and_models_in_flight_at_once_stay_apart,
)

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def asker(cuda_server: EmbeddedServer) -> Iterator[Asker]:
    asker = Asker(cuda_server.grpc_url)
    yield asker
    asker.client.close()


def test_pools_are_planned_and_given_to_the_server(cuda_server: EmbeddedServer) -> None:
    assert cuda_server.memory_plan.cuda_pool > 0
    assert cuda_server.memory_plan.pinned_pool > 0
    log = cuda_server.log_path.read_text()
    assert "Failed to allocate memory from CUDA memory pool" not in log


def test_a_long_run_of_random_requests_leaves_no_wrong_byte(
    cuda_server: EmbeddedServer, random: np.random.Generator
) -> None:
    """Buffers are used again and again, in every size: one that is read too early would show."""
    asker = Asker(cuda_server.grpc_url)
    for _ in range(20):
        images = [
            random.integers(0, 256, (1, 8 + 2 * int(random.integers(29)), 96, 3), np.uint8)
            for _ in range(32)
        ]
        options = np.zeros((1, 4), np.float32)
        answers = asker.ask_together(
            "invert_twice", [{"frame": image, "options": options} for image in images]
        )
        for image, answer in zip(images, answers, strict=True):
            np.testing.assert_array_equal(answer["twice"], image)
    asker.client.close()
