"""The fused projection to variance and strength against the formula in float64."""

import pytest
import torch

from locat_mm.ops import gaussian_parameters
from locat_mm.ops.backends import triton as triton_attention

needs_triton = pytest.mark.skipif(
    not triton_attention._HAS_TRITON, reason='Triton is not installed'
)
NAMES = ('variance', 'alpha', 'grad q', 'grad weight', 'grad bias')


def run(q, weight, bias, prefix, cotangents, backend):
    leaves = [x.detach().requires_grad_() for x in (q, weight, bias)]
    outputs = gaussian_parameters(*leaves, 196.0, prefix, backend)
    return [*outputs, *torch.autograd.grad(outputs, leaves, cotangents)]


def formula(q, weight, bias, prefix, cotangents):
    """Term by term, in float64."""
    leaves = [x.detach().double().requires_grad_() for x in (q, weight, bias)]
    q, weight, bias = leaves
    logits = [(q[:, :, prefix:] * w).sum(-1) + b for w, b in zip(weight, bias, strict=True)]
    variance = torch.stack([196.0 / (1 + torch.exp(-x)) for x in logits[:2]], -1)
    outputs = variance, torch.log(1 + torch.exp(logits[2]))
    grads = torch.autograd.grad(outputs, leaves, [c.double() for c in cotangents])
    return [*outputs, *grads]


@pytest.mark.parametrize('dtype', [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize('prefix', [0, 1, 5])
@pytest.mark.parametrize(
    ('heads', 'num_patches', 'head_dim'), [(2, 70, 64), (1, 1, 16), (3, 9, 80)]
)
@pytest.mark.parametrize('backend', [pytest.param('triton', marks=needs_triton), 'eager'])
def test_equals_the_formula(heads, num_patches, head_dim, prefix, dtype, backend, device):
    qkv = torch.randn(2, prefix + num_patches, 3, heads, head_dim, device=device).to(dtype)
    q = qkv.permute(2, 0, 3, 1, 4)[0]
    weight = torch.randn(3, head_dim, device=device) / head_dim**0.5
    bias = torch.randn(3, device=device)
    cotangents = [torch.randn(2, heads, num_patches, *last, device=device) for last in ((2,), ())]
    expected = formula(q, weight, bias, prefix, cotangents)
    found = run(q, weight, bias, prefix, cotangents, backend)
    assert found[0].dtype == found[1].dtype == torch.float32
    assert found[2].dtype == dtype
    assert not found[2][:, :, :prefix].any()
    for name, ours, reference in zip(NAMES, found, expected, strict=True):
        eps = torch.finfo(dtype if name == 'grad q' else torch.float32).eps
        error = (ours - reference).abs().max() / reference.abs().max()
        assert error <= (1 if name == 'grad q' and eps > 1e-6 else 20) * eps, name


@needs_triton
def test_extremes_stay_finite(device):
    logits = torch.tensor([-6e4, -200.0, -30.0, 0.0, 30.0, 200.0, 6e4], device=device)
    q = torch.zeros(1, 1, 7, 16, device=device)
    q[..., 0] = logits
    weight, bias = torch.zeros(3, 16, device=device), torch.zeros(3, device=device)
    weight[:, 0] = 1
    cotangents = [torch.ones(1, 1, 7, 2, device=device), torch.ones(1, 1, 7, device=device)]
    found = run(q, weight, bias, 0, cotangents, 'triton')
    expected = run(q, weight, bias, 0, cotangents, 'eager')
    for name, ours, reference in zip(NAMES, found, expected, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-5, atol=1e-6, msg=name)


@needs_triton
def test_equal_bits_in_two_runs(device):
    q = torch.randn(2, 2, 130, 32, device=device)
    weight, bias = torch.randn(3, 32, device=device), torch.randn(3, device=device)
    cotangents = [torch.randn(2, 2, 129, *last, device=device) for last in ((2,), ())]
    runs = [run(q, weight, bias, 1, cotangents, 'triton') for _ in range(2)]
    assert all(torch.equal(*pair) for pair in zip(*runs, strict=True))


@needs_triton
def test_compiles_without_a_graph_break(device):
    q = torch.randn(1, 2, 9, 16, device=device, requires_grad=True)
    weight, bias = torch.randn(3, 16, device=device), torch.randn(3, device=device)
    compiled = torch.compile(gaussian_parameters, backend='aot_eager', fullgraph=True)
    cotangents = [torch.randn(1, 2, 8, *last, device=device) for last in ((2,), ())]
    grads = []
    for function in (gaussian_parameters, compiled):
        outputs = function(q, weight, bias, 196.0, 1, 'triton')
        grads += torch.autograd.grad(outputs, q, cotangents)
    torch.testing.assert_close(*grads)


def test_a_kernel_that_cannot_run_says_why():
    with pytest.raises(
        ValueError, match="'triton' cannot run: it takes float32, .* got torch.float64"
    ):
        gaussian_parameters(
            torch.ones(1, 1, 2, 16).double(), torch.ones(3, 16), torch.ones(3), 4.0, 0, 'triton'
        )


def test_autocast_changes_nothing():
    q, weight, bias = torch.randn(1, 2, 5, 16), torch.randn(3, 16), torch.randn(3)
    outside = gaussian_parameters(q, weight, bias, 196.0, 1, 'eager')
    with torch.autocast('cpu', torch.bfloat16):
        inside = gaussian_parameters(q, weight, bias, 196.0, 1, 'eager')
    assert all(torch.equal(*pair) for pair in zip(outside, inside, strict=True))
