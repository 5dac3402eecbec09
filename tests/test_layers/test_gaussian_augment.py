"""Start values, ceilings and precision of GAug's parameters."""

import math

import pytest
import torch

from locat_mm.layers import GaussianAugment


def test_starts_at_one_squared_patch_and_ln2():
    gaug = GaussianAugment(8, (14, 14))
    assert 0.01 < gaug.log_var.weight.std() < 0.03 and not gaug.log_var.bias.any()
    variance, alpha = gaug(torch.zeros(1, 2, 196, 8), (14, 14))
    torch.testing.assert_close(variance, torch.ones(1, 2, 196, 2))
    torch.testing.assert_close(alpha, torch.full((1, 2, 196), math.log(2)))


@pytest.mark.parametrize(
    'grid, eps, max_sq_distance',
    [((14, 14), 0.1, 169), ((32, 32), 0.2, 961), ((7, 3), 0.1, 36), ((128, 9), 0.8, 13100)],
)
def test_half_precision_guards(grid, eps, max_sq_distance):
    gaug = GaussianAugment(4, grid)
    assert (gaug.eps, gaug.max_sq_distance) == (eps, max_sq_distance)


def test_ceiling_and_other_grids():
    gaug = GaussianAugment(4, (4, 6))
    gaug.log_var.bias.data.fill_(50.0)
    variance, _ = gaug(torch.zeros(1, 1, 24, 4), (4, 6))
    torch.testing.assert_close(variance.max(), torch.tensor(36.0))
    variance, _ = gaug(torch.zeros(1, 1, 16, 4), (2, 8))
    torch.testing.assert_close(variance.max(), torch.tensor(36.0 * 2 / 4))


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16], ids=str)
def test_half_queries_are_computed_in_float32(dtype):
    gaug = GaussianAugment(8, (2, 2))
    q = torch.randn(1, 1, 4, 8).to(dtype)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        variance, alpha = gaug(q, (2, 2))
    expected = gaug(q.float(), (2, 2))
    assert variance.dtype == alpha.dtype == torch.float32
    assert torch.equal(variance, expected[0]) and torch.equal(alpha, expected[1])
    halved = GaussianAugment(8, (2, 2)).to(dtype)
    halved.load_state_dict(gaug.state_dict())
    torch.testing.assert_close(halved(q, (2, 2))[0], expected[0], rtol=1e-2, atol=1e-3)


def test_an_empty_grid_is_refused():
    with pytest.raises(ValueError, match=r'at least 1×1, got \(0, 3\)'):
        GaussianAugment(4, (0, 3))
