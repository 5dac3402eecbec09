"""A case that benchmarks/attention.py measures, and the reasons to omit one."""

from typing import NamedTuple

import torch
from measure import available_memory

from locat_mm.models import LocAtViT
from locat_mm.ops import BACKENDS

__all__ = ['MODES', 'PARTS', 'PATCH', 'PLAIN', 'PRR', 'Case', 'is_too_much', 'reason_against']

PARTS = ('op', 'model')
MODES = ('forward', 'training')
PATCH = 16
#: The variants that are not backends.
PLAIN, PRR = 'plain', 'prr'
#: The largest number of tensors [B, heads, N, N] in float32 that a backend holds at a time: in the
#: forward pass, in the backward pass, and per layer between the two (measured, rounded up).
_HELD = {'eager': (2, 5, 2), 'naive': (8, 17, 3)}
#: The share of the free memory that a variant may use. The other variants of its group need some.
_SHARE = 0.8
_WARM_UP = 'warm-up'
_ARCHS = {**LocAtViT.ARCHS, _WARM_UP: dict(embed_dim=64, depth=1, num_heads=1)}


class Case(NamedTuple):
    """One measurement."""

    part: str  #: one of PARTS
    variant: str  #: PLAIN, PRR or a backend
    mode: str  #: one of MODES
    arch: str
    size: int  #: pixels per side of the image
    batch_size: int
    device: str
    dtype: torch.dtype  #: of q, k and v

    @property
    def grid_size(self) -> tuple[int, int]:
        return self.size // PATCH, self.size // PATCH

    @property
    def num_tokens(self) -> int:
        """Patches and one [CLS]."""
        return self.grid_size[0] * self.grid_size[1] + 1

    @property
    def dimensions(self) -> dict[str, int]:
        """``embed_dim``, ``depth``, ``num_heads``."""
        return _ARCHS[self.arch]

    @property
    def embed_dim(self) -> int:
        return self.dimensions['embed_dim']

    @property
    def num_heads(self) -> int:
        return self.dimensions['num_heads']

    @property
    def head_dim(self) -> int:
        return self.embed_dim // self.num_heads

    @property
    def small(self) -> 'Case':
        """The same case with few weights and tokens, for the warm-up; its memory can be reused."""
        return self._replace(arch=_WARM_UP, size=2 * PATCH, batch_size=1)


def reason_against(case: Case) -> str | None:
    """The reason why the case cannot be measured on this machine, or None."""
    if case.variant not in BACKENDS:
        return None
    if case.variant == 'triton' and case.device == 'cpu':
        return "it needs a GPU: in Triton's interpreter times mean nothing"
    q = torch.empty(
        (1, case.num_heads, case.num_tokens, case.head_dim), dtype=case.dtype, device=case.device
    )
    reason = BACKENDS[case.variant].why_not(q, None, 0.0)
    if case.device == 'cpu' and case.variant == 'naive' and case.part == 'model':
        if case.num_tokens > 2048:
            return 'on a CPU it takes minutes for an image of this size'
    # A GPU raises an error when its memory is full. On a CPU the process would be killed.
    if reason is not None or case.variant not in _HELD or case.device != 'cpu':
        return reason
    forward, backward, kept = _HELD[case.variant]
    depth = case.dimensions['depth'] if case.part == 'model' else 1
    held = forward if case.mode == 'forward' else backward + kept * depth
    return is_too_much(held * 4 * case.batch_size * case.num_heads * case.num_tokens**2, case)


def is_too_much(expected: float, case: Case) -> str | None:
    """The reason why this many bytes are not available, or None."""
    free = _SHARE * available_memory(case.device)
    if expected < free:
        return None
    return f'it takes {expected / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB may be used'
