"""The eager backend against the naive one, and plain attention where the bias vanishes."""

import pytest
import torch
from torch.nn import functional as F

from locat_mm.ops import gaussian_attention


def make_inputs(grid=(3, 4), prefix=2, dtype=torch.double):
    num_patches = grid[0] * grid[1]
    q, k, v = torch.randn(3, 2, 3, prefix + num_patches, 8, dtype=dtype)
    variance = torch.rand(2, 3, num_patches, 2, dtype=dtype) * 4 + 0.1
    alpha = torch.randn(2, 3, num_patches, dtype=dtype)
    return [x.detach().clone().requires_grad_() for x in (q, k, v, variance, alpha)]


def masks(num_tokens=14):
    keep = torch.rand(num_tokens, num_tokens) > 0.3
    keep.fill_diagonal_(True)
    return {
        'none': None,
        'float': torch.randn(1, 3, num_tokens, num_tokens, dtype=torch.double),
        'bool': keep,
    }


@pytest.mark.parametrize('mask', ['none', 'float', 'bool'])
@pytest.mark.parametrize('scale', [None, 0.7])
def test_eager_equals_naive_with_all_gradients(mask, scale):
    inputs = make_inputs()
    attn_bias = masks()[mask]
    outputs = [
        gaussian_attention(
            *inputs, (3, 4), 2, eps=0.2, scale=scale, attn_bias=attn_bias, backend=backend
        )
        for backend in ('eager', 'naive')
    ]
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
    cotangent = torch.randn_like(outputs[0])
    grads = [torch.autograd.grad(out, inputs, cotangent) for out in outputs]
    for ours, reference in zip(*grads, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-11)


def test_without_strength_it_is_plain_attention():
    q, k, v, variance, alpha = make_inputs()
    ours = gaussian_attention(q, k, v, variance, alpha * 0, (3, 4), 2)
    torch.testing.assert_close(ours, F.scaled_dot_product_attention(q, k, v))


def test_prefix_queries_see_no_bias():
    q, k, v, variance, alpha = make_inputs()
    ours = gaussian_attention(q, k, v, variance, alpha * 9, (3, 4), 2)
    plain = F.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(ours[:, :, :2], plain[:, :, :2])
    assert not torch.allclose(ours[:, :, 2:], plain[:, :, 2:])


@pytest.mark.parametrize('dtype', [torch.half, torch.bfloat16], ids=str)
def test_half_types_stay_as_close_as_plain_attention_does(dtype):
    inputs = [x.detach().to(dtype) for x in make_inputs(dtype=torch.float)]
    exact = [x.double() for x in inputs]
    error = (
        gaussian_attention(*inputs, (3, 4), 2).double()
        - gaussian_attention(*exact, (3, 4), 2, backend='naive')
    ).abs()
    plain_error = (
        F.scaled_dot_product_attention(*inputs[:3]).double()
        - F.scaled_dot_product_attention(*exact[:3])
    ).abs()
    assert error.max() < 4 * plain_error.max()


def test_dropout_drops():
    inputs = make_inputs()
    for backend in ('eager', 'naive'):
        dropped = gaussian_attention(*inputs, (3, 4), 2, dropout_p=0.5, backend=backend)
        assert not torch.allclose(dropped, gaussian_attention(*inputs, (3, 4), 2))


def test_mistakes_are_named():
    inputs = make_inputs()
    with pytest.raises(ValueError, match='14 tokens do not fit 1 prefix tokens and a grid of 3×4'):
        gaussian_attention(*inputs, (3, 4), 1)
    with pytest.raises(ValueError, match="unknown attention backend 'fast'; available: eager"):
        gaussian_attention(*inputs, (3, 4), 2, backend='fast')
