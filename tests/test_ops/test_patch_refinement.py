"""PRR against the authors' numbers and the formula."""

import pytest
import torch

from locat_mm.ops import refine_patches
from tests.support.golden import Golden


@pytest.mark.parametrize('index', [0, 1])
def test_equals_the_authors_tokens(index):
    golden = Golden('units')
    x, y = golden[f'prr{index}/x'], golden[f'prr{index}/y']
    if x.ndim == 4:  # [B, H, W, C]
        x, y = x.flatten(1, 2), y.flatten(1, 2)
    ours = refine_patches(x, int(golden[f'prr{index}/num_heads']))
    torch.testing.assert_close(ours, y, rtol=0, atol=1e-6)


def test_equals_the_formula():
    x = torch.randn(2, 5, 6, dtype=torch.double)
    expected = []
    for head in x.split(3, dim=-1):
        expected.append((head @ head.mT / 3**0.5).softmax(-1) @ head)
    torch.testing.assert_close(refine_patches(x, 2), torch.cat(expected, -1))


@pytest.mark.parametrize('num_refined', [1, 3, 5])
def test_the_first_tokens_alone_are_those_of_all(num_refined):
    x = torch.randn(2, 5, 6, dtype=torch.double, requires_grad=True)
    some = refine_patches(x, 2, num_refined)
    expected = refine_patches(x, 2)[:, :num_refined]
    torch.testing.assert_close(some, expected)
    grads = [torch.autograd.grad(y.square().sum(), x)[0] for y in (some, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize('num_refined', [0, 6, -1])
def test_tokens_that_are_not_there_are_named(num_refined):
    with pytest.raises(ValueError, match=f'num_refined={num_refined} of 5 tokens'):
        refine_patches(torch.ones(1, 5, 6), 2, num_refined)


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match='6 channels are not divisible by num_heads=4'):
        refine_patches(torch.ones(1, 2, 6), 4)
