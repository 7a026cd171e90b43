"""What a training step takes of a processor, measured in small."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[1]))

from step_cost import NETWORKS, Time, measure, table


@pytest.mark.parametrize("network", NETWORKS)
def test_the_parts_of_a_step_add_up(network):
    steps = measure(network, 4, 2)
    assert len(steps) == 2
    for step in steps:
        *parts, whole = step.values()
        assert whole.cpu > 0 and sum(part.cpu for part in parts) == pytest.approx(whole.cpu)
        named = {"the batch", "forward", "backward", "clipping", "optimizer", "the loop", "a step"}
        assert step.keys() == named


def test_medians_and_best_steps_are_in_milliseconds():
    steps = [{"a step": Time(cpu, 2 * cpu)} for cpu in (0.001, 0.002, 0.006)]
    row = table("ms", steps).splitlines()[-1]
    figures = np.array(row.split("|")[2:-1], float)
    assert figures.tolist() == [2.0, 1.0, 4.0, 2.0]
