"""The CPU's backend against the naive one, however it is cut into chunks."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from locat_mm.ops import gaussian_attention
from locat_mm.ops.backends import chunked as chunked_attention
from tests.support.chunks import set_chunks

# (batch, heads, grid, prefix tokens, (first axis, heads) of the attn_bias or None)
CASES = {
    'cls': (2, 3, (3, 4), 2, None),
    'one-patch': (1, 1, (1, 1), 1, None),
    'no-prefix': (3, 2, (1, 9), 0, None),
    'registers': (1, 2, (7, 5), 8, None),
    'bias': (2, 3, (3, 4), 2, (1, 3)),
    'bias-of-all-heads': (2, 3, (3, 4), 2, (1, 1)),
    'bias-per-window': (6, 2, (4, 4), 0, (3, 2)),
    'bias-per-image': (2, 3, (3, 4), 2, (2, 3)),
}
# (logits of a chunk, least queries): all at once; some images; two heads of three apart; each head
# and some queries apart.
BUDGETS = {
    'whole': (2**18, 256),
    'images': (1200, 256),
    'heads': (400, 256),
    'queries': (1, 4),
}


def make_inputs(batch, heads, grid, prefix, bias=None, dtype=torch.double, head_dim=8):
    num_patches = grid[0] * grid[1]
    num_tokens = prefix + num_patches
    # Views of one tensor, as the layers pass them.
    qkv = torch.randn(batch, num_tokens, 3, heads, head_dim, dtype=dtype)
    variance = torch.rand(batch, heads, num_patches, 2, dtype=dtype) * 4 + 0.1
    alpha = torch.randn(batch, heads, num_patches, dtype=dtype)
    leaves = [qkv, variance, alpha]
    if bias is not None:
        leaves.append(torch.randn(*bias, num_tokens, num_tokens, dtype=dtype))
    for x in leaves:
        x.requires_grad_()
    qkv, variance, alpha, *bias = leaves
    args = (*qkv.permute(2, 0, 3, 1, 4).unbind(0), variance, alpha, grid, prefix)
    return leaves, args, bias[0] if bias else None


@pytest.mark.parametrize('budget', BUDGETS)
@pytest.mark.parametrize('case', CASES)
def test_equals_naive_with_all_gradients(case, budget, monkeypatch):
    set_chunks(monkeypatch, *BUDGETS[budget])
    leaves, args, attn_bias = make_inputs(*CASES[case])
    kwargs = dict(eps=0.2, max_sq_distance=9.0, scale=0.7, attn_bias=attn_bias)
    ours, naive = (
        gaussian_attention(*args, **kwargs, backend=name) for name in ('chunked', 'naive')
    )
    torch.testing.assert_close(ours, naive, rtol=1e-10, atol=1e-12)
    cotangent = torch.randn_like(naive)
    grads = [torch.autograd.grad(out, leaves, cotangent) for out in (ours, naive)]
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_a_mask_that_hides_keys():
    leaves, args, _ = make_inputs(*CASES['cls'])
    keep = torch.rand(14, 14) > 0.3
    keep.fill_diagonal_(True)
    outputs = [
        gaussian_attention(*args, attn_bias=keep, backend=name) for name in ('chunked', 'naive')
    ]
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
    grads = [torch.autograd.grad(out.square().sum(), leaves) for out in outputs]
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_a_query_that_sees_nothing_has_finite_gradients():
    """The output is 0 then, as scaled_dot_product_attention's."""
    leaves, args, _ = make_inputs(*CASES['cls'])
    keep = torch.ones(14, 14, dtype=torch.bool)
    keep[[0, 5]] = False
    outputs = [
        gaussian_attention(*args, attn_bias=keep, backend=name) for name in ('chunked', 'eager')
    ]
    assert not outputs[0][:, :, [0, 5]].any()
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
    grads = [torch.autograd.grad(out.square().sum(), leaves) for out in outputs]
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_gaussians_are_computed_with_in_float32(dtype):
    _, (q, k, v, variance, alpha, *rest), _ = make_inputs(*CASES['registers'], dtype=torch.float)
    half = [x.detach().to(dtype).requires_grad_() for x in (variance, alpha)]
    full = [x.detach().float().requires_grad_() for x in half]
    outputs = [gaussian_attention(q, k, v, *x, *rest, backend='chunked') for x in (half, full)]
    assert torch.equal(*outputs)
    grads = [
        torch.autograd.grad(out.square().sum(), x, retain_graph=True)
        for out, x in zip(outputs, (half, full), strict=True)
    ]
    for found, expected in zip(*grads, strict=True):
        assert found.dtype == dtype
        assert torch.equal(found, expected.to(dtype))


@pytest.mark.parametrize('grid', [(14, 14), (32, 32)], ids=str)
def test_float32_is_as_exact_as_a_dense_bias(grid):
    leaves, args, _ = make_inputs(2, 2, grid, 1, dtype=torch.float, head_dim=64)
    exact = [x.double() if isinstance(x, torch.Tensor) else x for x in args]
    reference = gaussian_attention(*exact, backend='naive')
    cotangent = torch.randn(reference.shape)
    expected = [reference, *torch.autograd.grad(reference, leaves, cotangent.double())]
    errors = []
    for name in ('chunked', 'eager'):
        out = gaussian_attention(*args, backend=name)
        found = [out, *torch.autograd.grad(out, leaves, cotangent)]
        errors.append([(a - b).abs().max().item() for a, b in zip(found, expected, strict=True)])
    for ours, dense, value in zip(*errors, expected, strict=True):
        assert ours <= 2 * dense + 1e-7 * value.abs().max()


def test_nothing_of_the_size_of_the_logits_is_kept():
    _, args, _ = make_inputs(1, 2, (16, 16), 1, dtype=torch.float, head_dim=16)
    saved = []

    def pack(x):
        saved.append(x.numel())
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        gaussian_attention(*args, backend='chunked')
    assert saved
    assert max(saved) <= args[0].numel()


@pytest.mark.parametrize('splits_heads', [False, True])
@pytest.mark.parametrize('budget', [1, 2**17, 2**20, 2**30])
def test_every_query_of_an_image_and_head_is_in_one_chunk(budget, splits_heads):
    for batch, heads, num_tokens, period in [
        *((8, 3, 197, 1), (1, 3, 1025, 1), (2, 12, 4097, 1)),
        *((512, 3, 49, 64), (512, 3, 49, 1), (1024, 24, 144, 256)),
    ]:
        attn_bias = torch.empty(period, 1, 1, 1, device='meta') if period > 1 else None
        chunk = chunked_attention._Chunk(budget, 256, splits_heads)
        seen = torch.zeros(batch, heads, num_tokens, dtype=torch.int)
        for images, of_heads, queries in chunked_attention._chunks(
            batch, heads, num_tokens, attn_bias, chunk
        ):
            seen[images, of_heads, queries] += 1
            num_images = images.stop - images.start
            assert num_images % period == 0 or images.start % period + num_images <= period
            assert num_images == 1 or (of_heads, queries) == (slice(0, heads), slice(0, num_tokens))
            assert splits_heads or of_heads == slice(0, heads)
            assert of_heads.stop - of_heads.start in (1, heads) or queries == slice(0, num_tokens)
        assert (seen == 1).all()


def test_there_is_no_second_derivative():
    leaves, args, _ = make_inputs(*CASES['cls'])
    out = gaussian_attention(*args, backend='chunked')
    (grad,) = torch.autograd.grad(out.square().sum(), leaves[:1], create_graph=True)
    with pytest.raises(RuntimeError, match='once_differentiable'):
        grad.sum().backward()


def test_memory_first_taken_for_inference_serves_training_and_other_threads(monkeypatch):
    monkeypatch.setattr(chunked_attention, '_workspaces', chunked_attention._Workspaces())
    leaves, args, _ = make_inputs(*CASES['cls'])
    with torch.inference_mode():
        expected = gaussian_attention(*args, backend='chunked').clone()

    def forward(_):
        out = gaussian_attention(*args, backend='chunked')
        return out.detach(), torch.autograd.grad(out.sum(), leaves)

    with ThreadPoolExecutor(4) as pool:
        for out, grads in pool.map(forward, range(40)):
            torch.testing.assert_close(out, expected, rtol=0, atol=0)
            assert all(grad.isfinite().all() for grad in grads)
