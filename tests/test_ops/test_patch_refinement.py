"""PRR against the authors' numbers and the formula."""

import pytest
import torch
from golden import Golden

from locat_mm.ops import refine_patches


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


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match='6 channels are not divisible by num_heads=4'):
        refine_patches(torch.ones(1, 2, 6), 4)
