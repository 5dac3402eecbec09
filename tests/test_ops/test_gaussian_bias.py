"""The fast bias against the formula, the authors' numbers and its own definition."""

import math

import pytest
import torch

from locat_mm.layers import GaussianAugment
from locat_mm.ops import gaussian_bias, naive_gaussian_bias
from tests.support.golden import Golden

# (grid, prefix tokens, eps, max_sq_distance)
CASES = {
    'square': ((4, 4), 1, 0.1, math.inf),
    'no-prefix': ((3, 5), 0, 0.1, math.inf),
    'registers': ((5, 2), 5, 0.2, math.inf),
    'one-row': ((1, 7), 1, 0.1, math.inf),
    'one-patch': ((1, 1), 1, 0.1, math.inf),
    'clamped': ((9, 6), 1, 0.1, 9.0),
}


@pytest.fixture(params=CASES, ids=str)
def case(request):
    grid, prefix, eps, max_sq_distance = CASES[request.param]
    num_patches = grid[0] * grid[1]
    variance = torch.rand(2, 3, num_patches, 2, dtype=torch.double) * 5 + 0.01
    alpha = torch.randn(2, 3, num_patches, dtype=torch.double)
    return variance.requires_grad_(), alpha.requires_grad_(), grid, prefix, eps, max_sq_distance


def test_equals_the_naive_formula_with_gradients(case):
    variance, alpha, *rest = case
    fast, naive = gaussian_bias(*case), naive_gaussian_bias(*case)
    torch.testing.assert_close(fast, naive, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(fast)
    for ours, reference in zip(
        torch.autograd.grad(fast, (variance, alpha), cotangent),
        torch.autograd.grad(naive, (variance, alpha), cotangent),
        strict=True,
    ):
        torch.testing.assert_close(ours, reference, rtol=1e-10, atol=1e-12)


def test_gradients_equal_finite_differences():
    variance = (torch.rand(1, 2, 6, 2, dtype=torch.double) + 0.5).requires_grad_()
    alpha = torch.randn(1, 2, 6, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda v, a: gaussian_bias(v, a, (2, 3), 1, 0.1, 1.0), (variance, alpha)
    )


def test_one_entry_by_hand():
    # Query at patch (1, 0), key at patch (0, 2) of a 2×3 grid, one prefix token.
    variance = torch.ones(1, 1, 6, 2, dtype=torch.double)
    variance[0, 0, 3] = torch.tensor([0.4, 1.9])
    alpha = torch.full((1, 1, 6), 0.5, dtype=torch.double)
    bias = gaussian_bias(variance, alpha, (2, 3), num_prefix_tokens=1, eps=0.1)
    expected = 0.5 * math.exp(-0.5 * (1 / 0.5 + 4 / 2.0))
    assert bias[0, 0, 1 + 3, 1 + 2].item() == pytest.approx(expected, rel=1e-12)
    assert not bias[0, 0, 0].any() and not bias[0, 0, :, 0].any()


@pytest.mark.parametrize('index', range(5))
def test_equals_the_authors_bias_and_gradients(index):
    golden = Golden('units')
    grid = tuple(golden[f'{index}/grid'].tolist())
    prefix = int(golden[f'{index}/num_prefix_tokens'])
    q = golden[f'{index}/q'].requires_grad_()
    gaug = GaussianAugment(q.shape[-1], tuple(golden[f'{index}/init_grid'].tolist()))
    names = ('log_var.weight', 'log_var.bias', 'log_alpha.weight', 'log_alpha.bias')
    gaug.load_state_dict({name: golden[f'{index}/param/{name}'] for name in names})
    bias = gaussian_bias(
        *gaug(q[:, :, prefix:], grid), grid, prefix, gaug.eps, gaug.max_sq_distance
    )
    torch.testing.assert_close(bias, golden[f'{index}/bias'], rtol=0, atol=1e-6)
    (bias * golden[f'{index}/cotangent']).sum().backward()
    found = {'q': q.grad, **{name: p.grad for name, p in gaug.named_parameters()}}
    for name in ('q', *names):
        key = f'{index}/grad_q' if name == 'q' else f'{index}/grad/{name}'
        error = (found[name] - golden[key]).abs().max() / golden[key].abs().max()
        assert error < 1e-5, name


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16], ids=str)
def test_half_types_are_computed_in_float32(dtype):
    variance, alpha = torch.rand(1, 1, 4, 2).to(dtype), torch.rand(1, 1, 4).to(dtype)
    bias = gaussian_bias(variance, alpha, (2, 2))
    assert bias.dtype == torch.float32
    assert torch.equal(bias, gaussian_bias(variance.float(), alpha.float(), (2, 2)))


def test_shapes_that_do_not_fit_are_named():
    with pytest.raises(ValueError, match=r'grid of 2×3 .* \(1, 1, 5, 2\)'):
        gaussian_bias(torch.ones(1, 1, 5, 2), torch.ones(1, 1, 5), (2, 3))
    with pytest.raises(ValueError, match=r'alpha .* \(1, 1, 6\), got \(1, 1, 6, 1\)'):
        naive_gaussian_bias(torch.ones(1, 1, 6, 2), torch.ones(1, 1, 6, 1), (2, 3))
