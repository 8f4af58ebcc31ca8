"""Steps of the first stage, the parser and sampling on the device, which the host does not wait for."""

from collections.abc import Callable

import pytest
import torch

from ldm.sampling.solvers import SOLVERS
from tests import steps
from tests.gpu.synchronization import synchronizations

pytestmark = pytest.mark.gpu

TRAININGS: dict[str, Callable[[torch.device], tuple[object, steps.Batch]]] = {
    "first stage": steps.first_stage,
    "adversarial first stage": lambda device: steps.first_stage(device, adversarial=True),
    "parser": steps.parser,
}


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_step_never_synchronizes(name: str, device: torch.device) -> None:
    model, batch = TRAININGS[name](device)
    steps.training_step(model, batch, 0)  # libraries allocate their workspaces
    with synchronizations(device) as found:
        steps.training_step(model, batch, 1)
    assert found == []


@pytest.mark.parametrize("solver", SOLVERS)
def test_sampling_steps_never_synchronize(solver: str, device: torch.device) -> None:
    run, noise = steps.sampling(device, solver)
    with torch.no_grad():
        run(noise)
        with synchronizations(device) as found:
            run(noise)
    assert found == []
