"""The fused kernels of windows, with a dense bias, against the naive formula in float64."""

from functools import partial

import pytest
import torch
from timm.models.swin_transformer import WindowAttention

from locat_mm.layers import attach
from locat_mm.ops import gaussian_attention
from locat_mm.ops.backends import triton as backend_module
from locat_mm.ops.backends import triton_windows
from tests.support.exactness import assert_as_exact

# In the interpreter, what the kernels compute for keys that do not exist and never store.
pytestmark = [
    pytest.mark.filterwarnings('ignore:overflow encountered in exp2:RuntimeWarning'),
    pytest.mark.filterwarnings('ignore:invalid value encountered:RuntimeWarning'),
    pytest.mark.skipif(not backend_module._HAS_TRITON, reason='Triton is not installed'),
]
NAMES = ('output', 'q', 'k', 'v', 'variance', 'alpha', 'bias', 'correlation')
# dtype, head dimension, grid, prefix tokens, (images, windows, heads), limited distances, rotated
CASES = [
    (torch.float32, 32, (7, 7), 0, (3, 2, 1), False, False),
    (torch.float32, 24, (7, 7), 0, (1, 4, 2), True, True),
    (torch.bfloat16, 32, (7, 7), 0, (3, 1, 2), False, False),
    (torch.float16, 64, (8, 8), 0, (2, 2, 1), False, True),
    (torch.float16, 16, (1, 1), 0, (2, 3, 1), False, False),
    (torch.bfloat16, 32, (3, 5), 0, (3, 1, 2), True, True),
    # No tile of 64 has the shape of these.
    (torch.float32, 16, (3, 20), 0, (1, 2, 1), False, True),
    (torch.float32, 16, (5, 4), 3, (2, 1, 2), True, False),
]


def make_inputs(device, dtype, head_dim, grid, prefix, sizes, rotated):
    images, windows, heads = sizes
    batch, num_patches = images * windows, grid[0] * grid[1]
    num_tokens = prefix + num_patches
    qkv = torch.randn(batch, num_tokens, 3, heads, head_dim)
    q, k, v = qkv.to(device, dtype).permute(2, 0, 3, 1, 4).unbind(0)
    variance = torch.rand(batch, heads, num_patches, 2) * max(grid) + 0.1
    alpha = torch.randn(batch, heads, num_patches) * 2
    bias = torch.randn(windows, heads, num_tokens, num_tokens)
    more = [torch.rand(batch, heads, num_patches) * 1.9 - 0.95] if rotated else []
    others = [x.to(device) for x in (variance, alpha, bias, *more)]
    return [x.detach().requires_grad_() for x in (q, k, v, *others)]


def attention(inputs, grid, prefix, **kwargs):
    *tensors, bias = inputs[:6]
    correlation = inputs[6] if len(inputs) > 6 else None
    return gaussian_attention(
        *tensors, grid, prefix, attn_bias=bias, correlation=correlation, **kwargs
    )


def with_gradients(inputs, cotangent, grid, prefix, **kwargs):
    out = attention(inputs, grid, prefix, **kwargs)
    return [out, *torch.autograd.grad(out, inputs, cotangent.to(out.dtype))]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_as_exact_as_stock_attention(device, case):
    dtype, head_dim, grid, prefix, sizes, clamp, rotated = case
    inputs = make_inputs(device, dtype, head_dim, grid, prefix, sizes, rotated)
    cotangent = torch.randn_like(inputs[0])
    run = partial(with_gradients, grid=grid, prefix=prefix, cotangent=cotangent)
    if clamp:
        run = partial(run, max_sq_distance=(max(grid) / 3) ** 2)
    ours, comparison = run(inputs, backend='triton'), run(inputs, backend='eager')
    reference = run([x.detach().double().requires_grad_() for x in inputs], backend='naive')
    assert_as_exact(NAMES[: len(ours)], ours, reference, comparison, dtype)


@pytest.mark.parametrize('shape', [(1, 2, 15, 15), (2, 1, 15, 15), (15, 15), (4, 1, 1, 15)])
def test_a_broadcast_bias_gets_the_sum_of_gradients(device, shape):
    inputs = make_inputs(device, torch.float32, 16, (3, 5), 0, (2, 2, 2), False)
    inputs[5] = torch.randn(shape, device=device, requires_grad=True)
    cotangent = torch.randn_like(inputs[0])
    ours, reference = (
        with_gradients(inputs, cotangent, (3, 5), 0, backend=backend)
        for backend in ('triton', 'naive')
    )
    for name, a, r in zip(NAMES, ours, reference, strict=False):
        torch.testing.assert_close(a, r, msg=lambda m, name=name: f'{name}: {m}')


def test_the_images_of_a_program_are_summed(device, monkeypatch):
    """Two programs of a window: of three images, two and one."""
    inputs = make_inputs(device, torch.float32, 16, (3, 5), 0, (3, 2, 1), True)
    cotangent = torch.randn_like(inputs[0])
    apart = with_gradients(inputs, cotangent, (3, 5), 0, backend='triton')
    monkeypatch.setattr(triton_windows, '_ENOUGH_PROGRAMS', 3)
    assert triton_windows._split(inputs[0], 2) == (2, 2)
    together = with_gradients(inputs, cotangent, (3, 5), 0, backend='triton')
    for name, a, b in zip(NAMES, together, apart, strict=True):
        torch.testing.assert_close(a, b, msg=lambda m, name=name: f'{name}: {m}')


def test_a_boolean_mask(device):
    inputs = make_inputs(device, torch.float32, 16, (3, 5), 0, (2, 2, 1), False)
    mask = torch.rand(2, 1, 15, 15, device=device) < 0.5
    mask |= torch.eye(15, dtype=torch.bool, device=device)  # every query attends to something
    outs = [
        gaussian_attention(*inputs[:5], (3, 5), attn_bias=mask, backend=backend)
        for backend in ('triton', 'naive')
    ]
    torch.testing.assert_close(*outs)


def test_equal_inputs_give_equal_bits_in_poisoned_memory(device):
    inputs = make_inputs(device, torch.float32, 24, (3, 5), 0, (3, 1, 2), True)
    cotangent = torch.randn_like(inputs[0])
    first = with_gradients(inputs, cotangent, (3, 5), 0, backend='triton')
    odd = [x.detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_() for x in inputs]
    torch.use_deterministic_algorithms(True)  # fills what torch.empty returns with NaN
    try:
        second = with_gradients(odd, cotangent, (3, 5), 0, backend='triton')
    finally:
        torch.use_deterministic_algorithms(False)
    for name, a, b in zip(NAMES, first, second, strict=True):
        assert a.isfinite().all() and torch.equal(a, b), name


@pytest.mark.parametrize('variance', [1e-6, 6e4])
@pytest.mark.parametrize('correlation', [-0.9999999, 0.999999])
def test_extreme_values_stay_finite(device, variance, correlation):
    inputs = make_inputs(device, torch.float32, 16, (3, 5), 0, (1, 1, 1), True)
    with torch.no_grad():
        for x, value in zip((*inputs[3:5], inputs[6]), (variance, 6e4, correlation), strict=True):
            x.fill_(value)
    cotangent = torch.randn_like(inputs[0])
    for x in with_gradients(inputs, cotangent, (3, 5), 0, eps=0.0, backend='triton'):
        assert x.isfinite().all()


def test_compiles_to_one_graph(device):
    inputs = make_inputs(device, torch.float32, 16, (3, 5), 0, (2, 1, 1), True)
    run = partial(attention, grid=(3, 5), prefix=0, backend='triton')
    outs = [f(inputs) for f in (run, torch.compile(run, backend='aot_eager', fullgraph=True))]
    assert torch.equal(*outs)
    grads = [torch.autograd.grad(out.square().sum(), inputs) for out in outs]
    assert all(torch.equal(*pair) for pair in zip(*grads, strict=True))


def test_an_empty_batch(device):
    inputs = make_inputs(device, torch.float32, 16, (3, 5), 0, (0, 1, 1), False)
    found = with_gradients(inputs, inputs[0].detach(), (3, 5), 0, backend='triton')
    assert found[0].shape == (0, 1, 15, 16) and not found[6].any()


@pytest.mark.parametrize('kernel', ['axis', 'rotated'])
def test_swin_trains_in_shifted_windows(device, kernel):
    """timm's attention in windows with GAug, one step on each path."""
    host = torch.nn.Module()
    host.attn = WindowAttention(32, num_heads=2, window_size=(4, 4)).to(device)
    attach(host, kernel=kernel, start='paper')
    torch.nn.init.normal_(host.attn.relative_position_bias_table)
    x = torch.randn(6, 16, 32, device=device)  # two images of three windows
    mask = torch.where(torch.rand(3, 16, 16, device=device) < 0.2, -100.0, 0.0)
    results = []
    for backend in ('triton', 'eager'):
        host.attn.backend = backend
        host.zero_grad()
        out = host.attn(x, mask)
        out.square().sum().backward()
        results.append([out, *(p.grad for p in host.parameters())])
    names = ['output', *(name for name, _ in host.named_parameters())]
    for name, a, b in zip(names, *results, strict=True):
        torch.testing.assert_close(
            a, b, rtol=1e-4, atol=1e-5, msg=lambda m, name=name: f'{name}: {m}'
        )


def test_larger_windows_are_refused():
    q = torch.zeros(1, 1, 65, 16)
    reason = backend_module.why_not(q, torch.zeros(65, 65))
    assert reason == 'it takes an attn_bias for at most 64 tokens, got 65'
    q = torch.zeros(1, 1, 49, 80)
    reason = backend_module.why_not(q, torch.zeros(49, 49))
    assert reason == 'it takes an attn_bias for heads of at most 64, got 80'
