"""Rotated Gaussians: every backend against the naive formula in float64, and against kernels that
are aligned with the axes where the correlation is 0."""

import math
import random
from functools import partial

import numpy as np
import pytest
import torch

from locat_mm.ops import gaussian_attention, gaussian_bias, naive_gaussian_bias
from tests.support.chunks import set_chunks

# (grid, prefix tokens, eps, max_sq_distance)
CASES = {
    'square': ((4, 4), 1, 0.1, math.inf),
    'no-prefix': ((3, 5), 0, 0.1, math.inf),
    'registers': ((5, 2), 5, 0.2, math.inf),
    'one-row': ((1, 7), 1, 0.1, math.inf),
    'one-column': ((6, 1), 0, 0.1, 4.0),
    'one-patch': ((1, 1), 1, 0.1, math.inf),
    'clamped': ((9, 6), 1, 0.1, 7.0),
}
BACKENDS = ('eager', 'chunked')


def make_inputs(grid, prefix, batch=2, heads=3, dtype=torch.double, head_dim=8):
    num_patches = grid[0] * grid[1]
    qkv = torch.randn(3, batch, heads, prefix + num_patches, head_dim, dtype=dtype)
    variance = torch.rand(batch, heads, num_patches, 2, dtype=dtype) * 4 + 0.05
    alpha = torch.randn(batch, heads, num_patches, dtype=dtype) * 2
    correlation = torch.rand(batch, heads, num_patches, dtype=dtype) * 1.98 - 0.99
    return [x.detach().clone().requires_grad_() for x in (*qkv, variance, alpha, correlation)]


def attend(inputs, *args, **kwargs):
    q, k, v, variance, alpha, *correlation = inputs
    kwargs['correlation'] = correlation[0] if correlation else None
    return gaussian_attention(q, k, v, variance, alpha, *args, **kwargs)


def with_gradients(function, leaves, cotangent):
    out = function()
    return [out, *torch.autograd.grad(out, leaves, cotangent)]


def test_one_entry_by_the_inverse_of_the_covariance():
    """Query at patch (1, 0), key at patch (0, 2) of a 2×3 grid, one prefix token."""
    variance = torch.ones(1, 1, 6, 2, dtype=torch.double)
    variance[0, 0, 3] = torch.tensor([0.4, 1.9])
    alpha, correlation = torch.full((2, 1, 1, 6), 0.5, dtype=torch.double)
    correlation = correlation.clone().fill_(-0.7)
    covariance = np.array([[0.5, -0.7 * 1.0], [-0.7 * 1.0, 2.0]])  # √(0.5·2.0) = 1
    d = np.array([-1.0, 2.0])
    expected = 0.5 * math.exp(-0.5 * d @ np.linalg.inv(covariance) @ d)
    for function in (gaussian_bias, naive_gaussian_bias):
        bias = function(variance, alpha, (2, 3), 1, 0.1, correlation=correlation)
        assert bias[0, 0, 1 + 3, 1 + 2].item() == pytest.approx(expected, rel=1e-12)
        assert not bias[0, 0, 0].any() and not bias[0, 0, :, 0].any()


@pytest.mark.parametrize('case', CASES)
def test_the_dense_bias_equals_the_naive_formula_with_gradients(case):
    grid, prefix, eps, longest = CASES[case]
    leaves = make_inputs(grid, prefix)[3:]
    variance, alpha, correlation = leaves
    args = variance, alpha, grid, prefix, eps, longest, correlation
    cotangent = torch.randn_like(naive_gaussian_bias(*args))
    ours, naive = (
        with_gradients(lambda f=f: f(*args), leaves, cotangent)
        for f in (gaussian_bias, naive_gaussian_bias)
    )
    assert (ours[0].abs() <= torch.nn.functional.pad(alpha.abs(), (prefix, 0))[..., None]).all()
    for found, expected in zip(ours, naive, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


def test_gradients_equal_finite_differences():
    _, _, _, *leaves = make_inputs((2, 3), 1, 1, 2)
    assert torch.autograd.gradcheck(
        lambda v, a, c: gaussian_bias(v, a, (2, 3), 1, 0.1, 1.0, c), leaves
    )


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize(
    ('backend', 'budget'),
    [('eager', (1, 4)), *(('chunked', x) for x in ((2**18, 256), (400, 256), (1, 4)))],
    ids=str,
)
def test_attention_equals_naive_with_all_gradients(backend, case, budget, monkeypatch):
    set_chunks(monkeypatch, *budget)
    grid, prefix, eps, longest = CASES[case]
    inputs = make_inputs(grid, prefix)
    num_tokens = inputs[0].shape[2]
    attn_bias = torch.randn(1, 3, num_tokens, num_tokens, dtype=torch.double, requires_grad=True)
    kwargs = dict(eps=eps, max_sq_distance=longest, scale=0.7, attn_bias=attn_bias)
    cotangent = torch.randn_like(inputs[0])
    ours, naive = (
        with_gradients(
            lambda b=b: attend(inputs, grid, prefix, backend=b, **kwargs),
            [*inputs, attn_bias],
            cotangent,
        )
        for b in (backend, 'naive')
    )
    for found, expected in zip(ours, naive, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('backend', BACKENDS)
def test_random_grids_with_masks(backend):
    pick = random.Random(0)
    for _ in range(8):
        grid, prefix = (pick.randint(1, 9), pick.randint(1, 9)), pick.randint(0, 4)
        inputs = make_inputs(grid, prefix, pick.randint(1, 3), pick.randint(1, 3))
        keep = torch.rand(inputs[0].shape[2], inputs[0].shape[2]) > 0.3
        keep.fill_diagonal_(True)
        kwargs = dict(attn_bias=keep, max_sq_distance=pick.choice([0.0, 1.0, 20.0, math.inf]))
        ours, naive = (
            with_gradients(
                partial(attend, inputs, grid, prefix, backend=b, **kwargs),
                inputs,
                torch.ones_like(inputs[0]) + inputs[0].detach(),
            )
            for b in (backend, 'naive')
        )
        for found, expected in zip(ours, naive, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize('backend', [*BACKENDS, 'naive'])
def test_a_correlation_of_0_is_the_kernel_along_the_axes(backend, dtype):
    inputs = make_inputs((7, 5), 1, dtype=dtype)
    with torch.no_grad():
        inputs[-1].zero_()
    cotangent = torch.randn_like(inputs[0])
    kwargs = dict(backend=backend, max_sq_distance=16.0)
    rotated = with_gradients(lambda: attend(inputs, (7, 5), 1, **kwargs), inputs[:5], cotangent)
    aligned = with_gradients(lambda: attend(inputs[:5], (7, 5), 1, **kwargs), inputs[:5], cotangent)
    for found, expected in zip(rotated, aligned, strict=True):
        error = (found - expected).abs().max() / max(1.0, expected.abs().max().item())
        assert error < (1e-6 if dtype == torch.float32 else 1e-14)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('correlation', [-0.9999999, 0.0, 0.999999])
@pytest.mark.parametrize('variance', [1e-6, 1.0, 6e4])
@pytest.mark.parametrize('alpha', [-6e4, 6e4])
def test_extremes_stay_finite(backend, correlation, variance, alpha):
    inputs = make_inputs((3, 9), 1, dtype=torch.float)
    with torch.no_grad():
        for x, value in zip(inputs[3:], (variance, alpha, correlation), strict=True):
            x.fill_(value)
    for eps in (0.0, 0.1):
        out = attend(inputs, (3, 9), 1, eps=eps, backend=backend)
        grads = torch.autograd.grad(out.square().mean(), inputs)
        assert all(x.isfinite().all() for x in (out, *grads))


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16], ids=str)
def test_half_types_stay_as_close_as_kernels_along_the_axes_do(dtype):
    inputs = [x.detach().to(dtype) for x in make_inputs((3, 4), 2, dtype=torch.float)]
    errors = []
    for used in (inputs, inputs[:5]):
        exact = attend([x.double() for x in used], (3, 4), 2, backend='naive')
        errors.append((attend(used, (3, 4), 2).double() - exact).abs().max())
    assert errors[0] < 2 * errors[1]


def test_nothing_of_the_size_of_the_logits_is_kept():
    inputs = make_inputs((16, 16), 1, 1, 2, torch.float, 16)
    saved = []

    def pack(x):
        saved.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        attend(inputs, (16, 16), 1, backend='chunked')
    assert saved and max(saved) <= inputs[0].numel()


@pytest.mark.parametrize('value', [1.0, -1.5, float('nan')])
def test_a_correlation_outside_of_its_range_is_named(value):
    inputs = [x.detach() for x in make_inputs((3, 4), 2)]
    inputs[-1][1, 2, 3] = value
    with pytest.raises(ValueError, match=rf'correlation must be within \(-1, 1\), .* {abs(value)}'):
        attend(inputs, (3, 4), 2)
    with pytest.raises(ValueError, match=r'correlation .* \(2, 3, 12\), got \(2, 3, 11\)'):
        attend([*inputs[:5], inputs[5][..., :11]], (3, 4), 2)
