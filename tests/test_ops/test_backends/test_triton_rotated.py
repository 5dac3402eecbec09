"""The fused kernels of rotated Gaussians against the naive formula in float64."""

from functools import partial

import pytest
import torch

from locat_mm.ops import gaussian_attention, gaussian_parameters
from locat_mm.ops.backends import triton as backend_module
from tests.support.exactness import assert_as_exact

# In the interpreter, what the kernels compute for keys that do not exist and never store.
pytestmark = [
    pytest.mark.filterwarnings('ignore:overflow encountered in exp2:RuntimeWarning'),
    pytest.mark.filterwarnings('ignore:invalid value encountered in matmul:RuntimeWarning'),
    pytest.mark.skipif(not backend_module._HAS_TRITON, reason='Triton is not installed'),
]
NAMES = ('output', 'q', 'k', 'v', 'variance', 'alpha', 'correlation')
# dtype, head dimension, grid, prefix tokens, (batch, heads), limited distances
CASES = [
    (torch.float32, 16, (1, 1), 1, (1, 2), False),
    (torch.float32, 64, (1, 7), 0, (2, 1), False),
    (torch.float32, 24, (14, 13), 1, (1, 2), True),
    (torch.float16, 80, (9, 6), 5, (1, 2), False),
    (torch.bfloat16, 64, (8, 16), 4, (1, 1), True),
    (torch.float16, 32, (17, 3), 1, (1, 2), True),
    (torch.bfloat16, 128, (3, 20), 0, (1, 1), False),
]


def make_inputs(device, dtype, head_dim, grid, prefix, heads):
    batch, num_heads = heads
    num_patches = grid[0] * grid[1]
    qkv = torch.randn(batch, prefix + num_patches, 3, num_heads, head_dim)
    q, k, v = qkv.to(device, dtype).permute(2, 0, 3, 1, 4).unbind(0)
    variance = torch.rand(batch, num_heads, num_patches, 2) * max(grid) + 0.1
    alpha = torch.randn(batch, num_heads, num_patches) * 2
    correlation = torch.rand(batch, num_heads, num_patches) * 1.9 - 0.95
    gaussians = [x.to(device) for x in (variance, alpha, correlation)]
    return [x.detach().requires_grad_() for x in (q, k, v, *gaussians)]


def with_gradients(inputs, cotangent, grid, prefix, **kwargs):
    *tensors, correlation = inputs
    out = gaussian_attention(*tensors, grid, prefix, correlation=correlation, **kwargs)
    return [out, *torch.autograd.grad(out, inputs, cotangent.to(out.dtype))]


@pytest.mark.parametrize('case', CASES, ids=str)
def test_as_exact_as_stock_attention(device, case):
    dtype, head_dim, grid, prefix, heads, clamp = case
    batch = heads[0] * -(-32 // (heads[0] * heads[1] * grid[0] * grid[1]))
    inputs = make_inputs(device, dtype, head_dim, grid, prefix, (batch, heads[1]))
    cotangent = torch.randn_like(inputs[0])
    run = partial(with_gradients, grid=grid, prefix=prefix, cotangent=cotangent)
    if clamp:
        run = partial(run, max_sq_distance=(max(grid) / 3) ** 2)
    ours, comparison = run(inputs, backend='triton'), run(inputs, backend='eager')
    reference = run([x.detach().double().requires_grad_() for x in inputs], backend='naive')
    assert_as_exact(NAMES, ours, reference, comparison, dtype)


def test_a_correlation_of_0_is_the_kernel_along_the_axes(device):
    inputs = make_inputs(device, torch.float32, 16, (5, 9), 2, (1, 2))
    with torch.no_grad():
        inputs[-1].zero_()
    cotangent = torch.randn_like(inputs[0])
    rotated = with_gradients(inputs, cotangent, (5, 9), 2, backend='triton')[:-1]
    out = gaussian_attention(*inputs[:5], (5, 9), 2, backend='triton')
    aligned = [out, *torch.autograd.grad(out, inputs[:5], cotangent)]
    for name, a, b in zip(NAMES, rotated, aligned, strict=False):
        assert (a - b).abs().max() <= 1e-6 * max(1.0, b.abs().max().item()), name


def test_equal_inputs_give_equal_bits_in_poisoned_memory(device):
    inputs = make_inputs(device, torch.float32, 24, (5, 9), 5, (1, 2))
    cotangent = torch.randn_like(inputs[0])
    first = with_gradients(inputs, cotangent, (5, 9), 5, backend='triton')
    odd = [x.detach().movedim(1, -1).contiguous().movedim(-1, 1).requires_grad_() for x in inputs]
    torch.use_deterministic_algorithms(True)  # fills what torch.empty returns with NaN
    try:
        second = with_gradients(odd, cotangent, (5, 9), 5, backend='triton')
    finally:
        torch.use_deterministic_algorithms(False)
    for name, a, b in zip(NAMES, first, second, strict=True):
        assert a.isfinite().all() and torch.equal(a, b), name


@pytest.mark.parametrize('variance', [1e-6, 6e4])
@pytest.mark.parametrize('correlation', [-0.9999999, 0.999999])
def test_extreme_values_stay_finite(device, variance, correlation):
    inputs = make_inputs(device, torch.float32, 16, (3, 5), 2, (1, 1))
    with torch.no_grad():
        for x, value in zip(inputs[3:], (variance, 6e4, correlation), strict=True):
            x.fill_(value)
    cotangent = torch.randn_like(inputs[0])
    for x in with_gradients(inputs, cotangent, (3, 5), 2, eps=0.0, backend='triton'):
        assert x.isfinite().all()


def test_compiles_to_one_graph(device):
    inputs = make_inputs(device, torch.float32, 16, (3, 5), 1, (1, 1))

    def run(*inputs):
        *tensors, correlation = inputs
        kwargs = dict(correlation=correlation, backend='triton')
        return gaussian_attention(*tensors, (3, 5), 1, **kwargs)

    outs = [f(*inputs) for f in (run, torch.compile(run, backend='aot_eager', fullgraph=True))]
    assert torch.equal(*outs)
    grads = [torch.autograd.grad(out.square().sum(), inputs) for out in outs]
    assert all(torch.equal(*pair) for pair in zip(*grads, strict=True))


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(('heads', 'num_patches', 'head_dim'), [(2, 70, 64), (3, 9, 80)])
@pytest.mark.parametrize('backend', ['triton', 'eager'])
def test_parameters_equal_the_formula(heads, num_patches, head_dim, dtype, backend, device):
    q = torch.randn(2, heads, 1 + num_patches, head_dim, device=device).to(dtype)
    weight = torch.randn(4, head_dim, device=device) / head_dim**0.5
    weight[3] *= torch.rand((), device=device) / 4  # some near 0, where a tanh loses digits
    bias = torch.randn(4, device=device)
    bias[3] = 1e-4
    cotangents = [torch.randn(2, heads, num_patches, *n, device=device) for n in ((2,), (), ())]
    leaves = [x.detach().requires_grad_() for x in (q, weight, bias)]
    found = gaussian_parameters(*leaves, 196.0, 1, backend)
    found = [*found, *torch.autograd.grad(found, leaves, cotangents)]
    exact = [x.detach().double().requires_grad_() for x in (q, weight, bias)]
    logits = [(exact[0][:, :, 1:] * w).sum(-1) + b for w, b in zip(*exact[1:], strict=True)]
    variance = torch.stack([196.0 / (1 + torch.exp(-x)) for x in logits[:2]], -1)
    expected = [variance, torch.log(1 + torch.exp(logits[2])), 0.95 * torch.tanh(logits[3])]
    wanted = [c.double() for c in cotangents]
    expected = [*expected, *torch.autograd.grad(expected, exact, wanted)]
    names = ('variance', 'alpha', 'correlation', 'grad q', 'grad weight', 'grad bias')
    for name, ours, reference in zip(names, found, expected, strict=True):
        eps = torch.finfo(dtype if name == 'grad q' else torch.float32).eps
        error = (ours - reference).abs().max() / reference.abs().max()
        assert error <= (1 if name == 'grad q' and eps > 1e-6 else 20) * eps, name
