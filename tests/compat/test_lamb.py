"""mmpretrain's Lamb updates a scalar as it updates a vector of one element."""

import copy

import pytest
import torch
from mmpretrain.engine.optimizers import Lamb


@pytest.mark.parametrize('by_closure', [False, True])
def test_lamb_updates_a_scalar_as_a_vector_of_one_element(by_closure):
    scalar, vector = (torch.nn.Parameter(torch.full(shape, 2.6)) for shape in ((), (1,)))
    for parameter in (scalar, vector):
        optimizer = Lamb([parameter], lr=0.1, weight_decay=0.01)

        def loss_of(parameter=parameter, optimizer=optimizer):
            optimizer.zero_grad()
            loss = (parameter - 1).square().sum()
            loss.backward()
            return loss

        for _ in range(3):
            if by_closure:
                assert optimizer.step(loss_of) >= 0
            else:
                loss_of()
                optimizer.step()
            saved = copy.deepcopy(optimizer.state_dict())
            optimizer = Lamb([parameter], lr=0.1, weight_decay=0.01)
            optimizer.load_state_dict(saved)
    assert scalar.shape == scalar.grad.shape == ()
    assert scalar.item() == vector.item() != pytest.approx(2.6)
