"""The random networks of the extras: as large as the published files, of the same contracts."""

from __future__ import annotations

import numpy as np
import pytest

from bench import random_extras
from networks.batching import with_free_batch
from networks.modulation import split_modulation
from tests.graphs.evaluation import open_session


@pytest.mark.parametrize("name", random_extras.BYTES)
def test_it_is_as_large_as_the_published_file(name: str) -> None:
    # names of layers, and what an exporter folds, are a thousandth
    assert random_extras.build(name).ByteSize() == pytest.approx(
        random_extras.BYTES[name], rel=1e-3
    )


@pytest.mark.parametrize("name", random_extras.BYTES)
def test_the_published_layers_take_a_batch(name: str) -> None:
    network = random_extras.build(name, width=32)
    free = open_session(with_free_batch(split_modulation(network)))
    (given,) = free.get_inputs()
    shape = [2, *given.shape[1:]]
    pictures = np.random.default_rng(0).random(shape, dtype=np.float32)
    first = free.get_outputs()[0].name
    (both,) = free.run([first], {given.name: pictures})
    assert both.std() > 0.01
    single = open_session(network)
    for row in range(2):
        (wanted,) = single.run([first], {given.name: pictures[row : row + 1]})
        # float32 rounding, made larger by sixty layers of random weights; a picture that met
        # another's style would be off by the whole span
        np.testing.assert_allclose(both[row : row + 1], wanted, atol=5e-3 * np.ptp(wanted))
