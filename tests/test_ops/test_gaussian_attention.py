"""The eager backend against the naive one, and plain attention where the bias vanishes."""

import sys

import pytest
import torch
from torch.nn import functional as F

from locat_mm.ops import choose_backend, gaussian_attention

dispatch = sys.modules[gaussian_attention.__module__]


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


@pytest.mark.parametrize(
    ('dtype', 'dropout_p', 'expected'),
    [
        (torch.float32, 0.0, 'chunked'),
        (torch.float64, 0.0, 'chunked'),
        (torch.float32, 0.1, 'eager'),
        (torch.bfloat16, 0.0, 'eager'),
    ],
    ids=str,
)
def test_the_cpu_gets_the_fastest_that_can_run_and_the_log_says_so_once(
    dtype, dropout_p, expected, monkeypatch
):
    lines = []
    monkeypatch.setattr(dispatch._logger, 'info', lambda line, *args: lines.append(line % args))
    dispatch._log_choice.cache_clear()
    q = torch.empty(1, 2, 5, 16, dtype=dtype)
    for _ in range(2):
        assert choose_backend(q, dropout_p=dropout_p) == expected
    assert len(lines) == 1
    assert f"on cpu: backend '{expected}'" in lines[0]


def test_a_named_backend_that_cannot_run_says_why():
    inputs = make_inputs(dtype=torch.float)
    with pytest.raises(ValueError, match=r"'chunked' cannot run: it has no dropout, got .*0\.1"):
        gaussian_attention(*inputs, (3, 4), 2, dropout_p=0.1, backend='chunked')
    half = [x.half() for x in inputs]
    with pytest.raises(ValueError, match=r"'chunked' cannot run: .* got torch\.float16"):
        gaussian_attention(*half, (3, 4), 2, backend='chunked')
    with pytest.raises(ValueError, match="'triton' cannot run: the head dimension .* got 8"):
        gaussian_attention(*inputs, (3, 4), 2, backend='triton')
    meta = [x.detach().to('meta') for x in inputs]
    with pytest.raises(ValueError, match="'chunked' cannot run: it is for the CPU, q is on meta"):
        gaussian_attention(*meta, (3, 4), 2, backend='chunked')


def test_mistakes_are_named():
    inputs = make_inputs()
    q, k, v, variance, alpha = inputs
    with pytest.raises(ValueError, match='14 tokens do not fit 1 prefix tokens and a grid of 3×4'):
        gaussian_attention(*inputs, (3, 4), 1)
    with pytest.raises(ValueError, match="unknown attention backend 'fast'; available: chunked"):
        gaussian_attention(*inputs, (3, 4), 2, backend='fast')
    with pytest.raises(ValueError, match=r'of one shape .* \(2, 3, 14, 8\), \(2, 3, 13, 8\) and'):
        gaussian_attention(q, k[:, :, :13], v, variance, alpha, (3, 4), 2)
    with pytest.raises(ValueError, match=r'variance must be of shape \(2, 3, 12, 2\) .* \(1, 3,'):
        gaussian_attention(q, k, v, variance[:1], alpha, (3, 4), 2)
    with pytest.raises(ValueError, match=r'alpha .* \(2, 3, 12\), got \(2, 3, 11\)'):
        gaussian_attention(q, k, v, variance, alpha[..., :11], (3, 4), 2)
    with pytest.raises(TypeError, match=r'floating-point, got torch\.int64'):
        gaussian_attention(q.long(), k.long(), v.long(), variance, alpha, (3, 4), 2)
    with pytest.raises(TypeError, match=r'one dtype, got torch\.float64, torch\.float32, torch'):
        gaussian_attention(q, k.float(), v, variance, alpha, (3, 4), 2)


@pytest.mark.parametrize(
    'shape', [(3, 3, 14, 14), (4, 1, 14, 14), (2, 14, 14), (13, 14), (1, 2, 3, 14, 14)], ids=str
)
@pytest.mark.parametrize('backend', [None, 'eager', 'naive'])
def test_an_attn_bias_that_does_not_fit_is_named(shape, backend):
    expected = r'broadcast to .* \[2, 3, 14, 14\], .* got shape \(' + f'{shape[0]}, {shape[1]}'
    with pytest.raises(ValueError, match=expected):
        gaussian_attention(*make_inputs(), (3, 4), 2, attn_bias=torch.zeros(shape), backend=backend)


def test_no_images_and_negative_prefixes():
    empty = [x[:0] for x in make_inputs()]
    assert gaussian_attention(*empty, (3, 4), 2).shape == (0, 3, 14, 8)
    with pytest.raises(ValueError, match='14 tokens do not fit -2 prefix tokens and a grid of 4×4'):
        gaussian_attention(*make_inputs(), (4, 4), -2)


def test_float16_biases_that_sum_up_to_more_than_its_largest_number():
    q, k, v, variance, _ = (x.detach().half() for x in make_inputs(dtype=torch.float))
    alpha = torch.full((2, 3, 12), 6e4)
    attn_bias = torch.full((14, 14), 3e4)
    out = gaussian_attention(q, k, v, variance, alpha, (3, 4), 2, attn_bias=attn_bias)
    assert out.isfinite().all()


@pytest.mark.parametrize('value', [0.0, -1.5, float('nan')])
def test_a_variance_that_is_not_positive_is_named(value):
    q, k, v, variance, alpha = (x.detach() for x in make_inputs())
    variance[1, 2, 3, 1] = value
    with pytest.raises(ValueError, match=f'variance must be positive, .* {value}'):
        gaussian_attention(q, k, v, variance, alpha, (3, 4), 2)
    gaussian_attention(q, k, v, variance, alpha, (3, 4), 2, check_values=False)


def test_autocast_rules_over_float32_inputs():
    inputs = make_inputs(dtype=torch.float)
    with torch.autocast('cpu', torch.bfloat16):
        out = gaussian_attention(*inputs, (3, 4), 2)
    assert out.dtype == torch.bfloat16
    out.float().square().sum().backward()
    assert all(x.grad.dtype == torch.float32 for x in inputs)


# Logits of float16's size: scale·q·k reaches ±6e4, the bias as much.
@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('backend', ['chunked', 'eager'])
@pytest.mark.parametrize('variance', [1e-6, 1.0, 6e4], ids=lambda x: f'variance={x:g}')
@pytest.mark.parametrize('alpha', [-6e4, 1e-6, 6e4], ids=lambda x: f'alpha={x:g}')
@pytest.mark.parametrize('logits', [0.0, 1.0, 6e4], ids=lambda x: f'logits={x:g}')
def test_extremes_stay_finite(logits, alpha, variance, backend, dtype):
    if backend == 'chunked' and dtype != torch.float32:
        backend = None  # what the CPU takes for half types
    q, k, v, _, _ = make_inputs(dtype=torch.float)
    q, k = (x.detach().sign() * (logits / 8**0.5) ** 0.5 for x in (q, k))
    inputs = [x.detach().to(dtype).requires_grad_() for x in (q, k, v)]
    inputs += [torch.full((2, 3, 12, 2), variance), torch.full((2, 3, 12), alpha)]
    for x in inputs[3:]:
        x.requires_grad_()
    out = gaussian_attention(*inputs, (3, 4), 2, backend=backend)
    out.float().square().mean().backward()
    for x in (out, *(x.grad for x in inputs)):
        assert x.isfinite().all()
