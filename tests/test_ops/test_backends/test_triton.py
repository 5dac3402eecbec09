"""The fused kernels against the naive formula in float64, on awkward shapes and memory.

Without a GPU they run in Triton's interpreter (see conftest.py).
"""

import itertools
import random
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from locat_mm.ops import gaussian_attention
from locat_mm.ops.backends import triton as backend_module
from locat_mm.ops.backends.triton import triton_attention, why_not
from locat_mm.ops.geometry import Geometry

# In the interpreter, what the kernels compute for keys that do not exist and never store.
pytestmark = [
    pytest.mark.filterwarnings('ignore:overflow encountered in exp2:RuntimeWarning'),
    pytest.mark.filterwarnings('ignore:invalid value encountered in matmul:RuntimeWarning'),
]
needs_triton = pytest.mark.skipif(not backend_module._HAS_TRITON, reason='Triton is not installed')
NAMES = ('output', 'q', 'k', 'v', 'variance of rows', 'variance of columns', 'alpha')
#: Beyond twice the error of scaled_dot_product_attention, in units of the type's epsilon: where
#: that happens to be exact. Gradients of variance and alpha are float32, but in half types
#: δ = Σ d_out·out is of the rounded output, as FlashAttention's: half an epsilon.
SLACK = {torch.float32: 8, torch.float16: 1, torch.bfloat16: 1}
AXES = {
    'dtype': (torch.float32, torch.float16, torch.bfloat16),
    'head_dim': (16, 32, 48, 64, 80, 128),
    'grid': ((1, 1), (1, 7), (14, 14), (14, 13), (3, 40), (32, 3), (17, 9), (8, 16)),
    'prefix': (0, 1, 4, 5, 8),
    'heads': ((1, 2), (2, 1)),  # batch, heads
    'layout': ('qkv', 'contiguous'),
    'clamp': (False, True),
    'scale': (None, 0.07),
}


MORE_GRIDS = ((5, 40), (17, 17), (2, 2), (24, 24))


def pairwise(axes):
    """Cases in which any two values of two axes meet; greedy, the same in every run."""
    pick = random.Random(0)
    pairs = {
        frozenset(((a, x), (b, y)))
        for a, b in itertools.combinations(axes, 2)
        for x in axes[a]
        for y in axes[b]
    }
    while pairs:
        seed = dict(pick.choice(sorted(map(sorted, pairs), key=str)))
        tries = [
            {name: seed.get(name, pick.choice(values)) for name, values in axes.items()}
            for _ in range(30)
        ]
        met = [{frozenset(p) for p in itertools.combinations(c.items(), 2)} & pairs for c in tries]
        best = max(range(len(tries)), key=lambda i: len(met[i]))
        pairs -= met[best]
        yield tries[best]


def case_id(case):
    height, width = case['grid']
    batch, heads = case['heads']
    parts = [
        str(case['dtype']).removeprefix('torch.'),
        f'd{case["head_dim"]}',
        f'{height}x{width}+{case["prefix"]}',
        f'{batch}x{heads}',
        case['layout'],
        'clamp' if case['clamp'] else '',
        f'scale{case["scale"]}' if case['scale'] else '',
    ]
    return '-'.join(filter(None, parts))


def every_case():
    """All types, head dimensions, grids and prefixes; the rest in turn."""
    rest = itertools.cycle(itertools.product(*(AXES[n] for n in list(AXES)[4:])))
    grids = AXES['grid'] + MORE_GRIDS
    for values in itertools.product(AXES['dtype'], AXES['head_dim'], grids, AXES['prefix']):
        yield dict(zip(AXES, (*values, *next(rest)), strict=True))


def make_inputs(device, grid, prefix, head_dim, dtype=torch.float32, heads=(1, 1), layout='qkv'):
    batch, num_heads = heads
    num_patches = grid[0] * grid[1]
    qkv = torch.randn(batch, prefix + num_patches, 3, num_heads, head_dim)
    qkv = qkv.to(device, dtype).permute(2, 0, 3, 1, 4)
    q, k, v = (qkv if layout == 'qkv' else qkv.contiguous()).unbind(0)
    variance = torch.rand(batch, num_heads, num_patches, 2) * max(grid) + 0.1
    alpha = torch.randn(batch, num_heads, num_patches) * 2
    return [x.detach().requires_grad_() for x in (q, k, v, variance.to(device), alpha.to(device))]


def fused(inputs, grid, prefix, *, eps=0.1, max_sq_distance=float('inf'), scale=0.25):
    geometry = Geometry(*grid, prefix, eps, max_sq_distance)
    return triton_attention(*inputs, geometry, scale=scale)


def with_gradients(attention, inputs, cotangent):
    """Output and all gradients, the variance's apart, in the order of NAMES."""
    out = attention(inputs)
    d_q, d_k, d_v, d_variance, d_alpha = torch.autograd.grad(out, inputs, cotangent.to(out.dtype))
    return [out, d_q, d_k, d_v, d_variance[..., 0], d_variance[..., 1], d_alpha]


def check_case(device, case):
    grid, prefix, dtype = case['grid'], case['prefix'], case['dtype']
    batch, heads = case['heads']
    # Largest errors are compared: that takes more than a few patches.
    batch *= -(-32 // (batch * heads * grid[0] * grid[1]))
    inputs = make_inputs(
        device, grid, prefix, case['head_dim'], dtype, (batch, heads), case['layout']
    )
    kwargs = dict(eps=0.1, scale=case['scale'] or case['head_dim'] ** -0.5)
    if case['clamp']:
        kwargs['max_sq_distance'] = (max(grid) / 2) ** 2 if max(grid) > 1 else 0.0
    cotangent = torch.randn_like(inputs[0])
    exact = [x.detach().double().requires_grad_() for x in inputs]

    def stock(backend):
        return lambda x: gaussian_attention(*x, grid, prefix, backend=backend, **kwargs)

    ours = with_gradients(lambda x: fused(x, grid, prefix, **kwargs), inputs, cotangent)
    reference = with_gradients(stock('naive'), exact, cotangent)
    comparison = with_gradients(stock('eager'), inputs, cotangent)
    for name, a, r, c in zip(NAMES, ours, reference, comparison, strict=True):
        assert a.shape == r.shape
        size = r.abs().max().item()
        if inputs[0].shape[-2] == 1:  # all gradients of the logits are 0 but for rounding
            size = max(size, case['head_dim'] ** 0.5)
        error, allowed = ((x.double() - r).abs().max().item() for x in (a, c))
        slack = SLACK[dtype] if a.dtype == dtype else 0.5
        allowed = 2 * allowed + slack * torch.finfo(dtype).eps * size
        assert error <= allowed, f'{name}: error {error:.2e}, allowed {allowed:.2e}'


#: The interpreter takes seconds for each: head dimensions with and without padding, single tiles
#: and several, tall and wide.
FEW = {
    **AXES,
    'head_dim': (16, 64, 80, 128),
    'grid': ((1, 1), (1, 7), (14, 13), (3, 40), (32, 3), (8, 16)),
}


@needs_triton
@pytest.mark.parametrize('case', pairwise(FEW), ids=case_id)
def test_as_exact_as_stock_attention(device, case):
    check_case(device, case)


@needs_triton
@pytest.mark.kernels
@pytest.mark.parametrize('case', every_case(), ids=case_id)
def test_as_exact_as_stock_attention_everywhere(device, case):
    check_case(device, case)


@needs_triton
@pytest.mark.parametrize('side', [32, pytest.param(64, marks=pytest.mark.kernels)])
def test_long_sequences(device, side):
    inputs = make_inputs(device, (side, side), 1, 32, torch.float16)
    with torch.no_grad():
        ours = fused(inputs, (side, side), 1)
        exact = [x.double() for x in inputs]
        reference = gaussian_attention(*exact, (side, side), 1, scale=0.25, backend='eager')
    assert (ours - reference).abs().max() < 2e-3 * reference.abs().max()


@needs_triton
@pytest.mark.parametrize('prefix', [0, 5, 40])
@pytest.mark.parametrize('grid', [(5, 9), (8, 8)], ids=str)
def test_memory_around_the_tensors_does_not_matter(device, grid, prefix):
    """40 prefix tokens are more than one tile of them, and than the columns that pad 5×9."""

    def in_nan(x):
        buffer = torch.full([n + 5 for n in x.shape], float('nan')).to(x)
        view = buffer[tuple(slice(2, 2 + n) for n in x.shape)]
        return view.copy_(x.detach()).requires_grad_()

    inputs = make_inputs(device, grid, prefix, 24, heads=(1, 2))
    cotangent = torch.randn_like(inputs[0])
    clean = with_gradients(lambda x: fused(x, grid, prefix), inputs, cotangent)
    torch.use_deterministic_algorithms(True)  # fills what torch.empty returns with NaN
    try:
        poisoned = with_gradients(
            lambda x: fused(x, grid, prefix), [in_nan(x) for x in inputs], in_nan(cotangent)
        )
    finally:
        torch.use_deterministic_algorithms(False)
    for name, a, b in zip(NAMES, clean, poisoned, strict=True):
        assert a.isfinite().all() and torch.equal(a, b), name
    exact = [x.detach().double().requires_grad_() for x in inputs]
    reference = with_gradients(
        lambda x: gaussian_attention(*x, grid, prefix, scale=0.25, backend='naive'),
        exact,
        cotangent,
    )
    for name, a, r in zip(NAMES, clean, reference, strict=True):
        assert (a - r).abs().max() < 3e-6 * r.abs().max(), name


@needs_triton
@pytest.mark.parametrize('dtype', AXES['dtype'], ids=str)
def test_equal_inputs_give_equal_bits(device, dtype):
    inputs = make_inputs(device, (6, 7), 1, 32, dtype, (1, 2))
    cotangent = torch.randn_like(inputs[0])
    first, second = (
        with_gradients(lambda x: fused(x, (6, 7), 1), inputs, cotangent) for _ in range(2)
    )
    for name, a, b in zip(NAMES, first, second, strict=True):
        assert torch.equal(a, b), name


@needs_triton
@pytest.mark.parametrize('dtype', AXES['dtype'], ids=str)
@pytest.mark.parametrize('variance', [1e-6, 6e4])
@pytest.mark.parametrize('alpha', [-6e4, 0.0, 6e4])
@pytest.mark.parametrize('logits', [0.0, 6e4, -6e4])
def test_extreme_values_stay_finite(device, dtype, variance, alpha, logits):
    inputs = make_inputs(device, (3, 5), 2, 16, dtype)
    q, k, _, var, strength = inputs
    with torch.no_grad():
        # Logits of one sign, up to the given size.
        q.copy_(abs(logits) ** 0.5 * torch.rand_like(q))
        k.copy_((1 if logits >= 0 else -1) * abs(logits) ** 0.5 * torch.rand_like(k) / 4)
        var.fill_(variance)
        strength.fill_(alpha)
    cotangent = torch.randn_like(q)
    full = [x.detach().float().requires_grad_() for x in inputs]
    reference = with_gradients(
        lambda x: gaussian_attention(*x, (3, 5), 2, eps=0.0, scale=0.25, backend='naive'),
        full,
        cotangent,
    )
    ours = with_gradients(lambda x: fused(x, (3, 5), 2, eps=0.0), inputs, cotangent)
    for name, a, r in zip(NAMES, ours, reference, strict=True):
        assert r.isfinite().all() and a.isfinite().all(), name


@needs_triton
@pytest.mark.parametrize('scale', [-0.3, 0.0])
def test_scales_that_are_not_positive(device, scale):
    inputs = make_inputs(device, (3, 5), 1, 16)
    cotangent = torch.randn_like(inputs[0])
    ours = with_gradients(lambda x: fused(x, (3, 5), 1, scale=scale), inputs, cotangent)
    reference = with_gradients(
        lambda x: gaussian_attention(*x, (3, 5), 1, scale=scale, backend='naive'),
        inputs,
        cotangent,
    )
    for name, a, r in zip(NAMES, ours, reference, strict=True):
        torch.testing.assert_close(a, r, msg=lambda m, name=name: f'{name}: {m}')


@needs_triton
def test_any_strides_and_gradient_of_a_sum(device):
    """Of d_out = 1 all strides are 0; here the last axis of q is not contiguous either."""
    inputs = make_inputs(device, (3, 5), 1, 16)
    odd = [x.detach().transpose(-1, -2).contiguous().transpose(-1, -2) for x in inputs[:3]]
    odd += [x.detach().movedim(1, -1).contiguous().movedim(-1, 1) for x in inputs[3:]]
    grads = []
    for tensors in (inputs, [x.requires_grad_() for x in odd]):
        grads.append(torch.autograd.grad(fused(tensors, (3, 5), 1).square().sum(), tensors))
        torch.autograd.grad(fused(tensors, (3, 5), 1).sum(), tensors[2])
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


@needs_triton
@pytest.mark.parametrize('wanted', [(0,), (2,), (3,), (4,), (1, 3)], ids=str)
def test_gradients_of_some_inputs_alone(device, wanted):
    inputs = make_inputs(device, (3, 5), 1, 16)
    cotangent = torch.randn_like(inputs[0])
    everything = torch.autograd.grad(fused(inputs, (3, 5), 1), inputs, cotangent)
    some = [x.detach().requires_grad_(i in wanted) for i, x in enumerate(inputs)]
    fused(some, (3, 5), 1).backward(cotangent)
    for i, x in enumerate(some):
        assert x.grad is None if i not in wanted else torch.equal(x.grad, everything[i])


@needs_triton
def test_half_gaussians_are_computed_with_in_full_precision(device):
    q, k, v, variance, alpha = make_inputs(device, (3, 5), 1, 16, torch.float16)
    half = [x.detach().half().requires_grad_() for x in (variance, alpha)]
    full = [x.detach().float().requires_grad_() for x in half]
    outs = [fused((q, k, v, *gaussian), (3, 5), 1) for gaussian in (half, full)]
    assert torch.equal(*outs)
    grads = [
        torch.autograd.grad(o.float().sum(), g) for o, g in zip(outs, (half, full), strict=True)
    ]
    for a, b in zip(*grads, strict=True):
        assert a.dtype == torch.float16 and torch.equal(a, b.half())


@needs_triton
def test_merging_the_heads_of_the_output_is_a_view(device):
    out = fused(make_inputs(device, (3, 5), 1, 16, heads=(2, 3)), (3, 5), 1)
    assert out.transpose(1, 2).is_contiguous()


@needs_triton
@pytest.mark.parametrize('backend', ['eager', 'aot_eager'])
def test_compiles_to_one_graph(device, backend):
    inputs = make_inputs(device, (3, 5), 1, 16)
    cotangent = torch.randn_like(inputs[0])
    compiled = torch.compile(fused, backend=backend, fullgraph=True)
    ours = with_gradients(lambda x: compiled(x, (3, 5), 1), inputs, cotangent)
    plain = with_gradients(lambda x: fused(x, (3, 5), 1), inputs, cotangent)
    for name, a, b in zip(NAMES, ours, plain, strict=True):
        assert torch.equal(a, b), name


def test_reasons_against_it(monkeypatch):
    monkeypatch.setattr(backend_module, '_HAS_TRITON', True)
    monkeypatch.setattr(backend_module, 'is_interpreted', lambda: False)
    monkeypatch.setattr(backend_module, '_capability', lambda device: (7, 5))
    monkeypatch.setattr(backend_module, '_triton_version', lambda: (3, 6))

    def query(device='cuda', dtype=torch.float16, head_dim=64, num_tokens=5):
        shape = 1, 2, num_tokens, head_dim
        return SimpleNamespace(shape=shape, dtype=dtype, device=torch.device(device), ndim=4)

    assert 'at most 64 tokens, got 65' in why_not(query(num_tokens=65), torch.zeros(65, 65))
    assert 'dropout_p=0.1' in why_not(query(), None, 0.1)
    assert 'got torch.float64' in why_not(query(dtype=torch.float64))
    assert 'within 16 to 128, got 192' in why_not(query(head_dim=192))
    assert 'within 16 to 128, got 8' in why_not(query(head_dim=8))
    assert 'NVIDIA GPU, got a tensor on cpu' in why_not(query('cpu'))
    assert 'NVIDIA GPU, got a tensor on meta' in why_not(query('meta'))
    assert 'compute capability 8.0 (for bfloat16), got 7.5' in why_not(query())
    monkeypatch.setattr(backend_module, '_capability', lambda device: (8, 0))
    monkeypatch.setattr(backend_module, '_triton_version', lambda: (3, 2))
    assert why_not(query()) == 'it needs Triton 3.4, 3.2 is installed'
    monkeypatch.setattr(backend_module, '_triton_version', lambda: (3, 10))
    assert why_not(query()) is None
    monkeypatch.setattr(backend_module, 'is_interpreted', lambda: True)
    assert why_not(query('cpu')) is None
    with pytest.raises(ValueError, match='cannot run this: it takes float32.*got torch.float64'):
        fused([torch.zeros(1, 1, 1, 16).double()] * 5, (1, 1), 0)


def test_without_triton_and_openmmlab_the_reason_says_so():
    # locat_mm without its __init__, which brings OpenMMLab: the tensor functions need none.
    code = """
import sys, types
sys.modules['triton'] = sys.modules['mmengine'] = None
import torch
sys.modules['locat_mm'] = types.ModuleType('locat_mm')
sys.modules['locat_mm'].__path__ = sys.argv[1:]
from locat_mm.ops.backends import triton
print(triton.why_not(torch.zeros(1, 1, 1, 16)))
"""
    command = [sys.executable, '-c', code, str(Path(backend_module.__file__).parents[2])]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.stdout.strip() == 'Triton is not installed', result.stderr
