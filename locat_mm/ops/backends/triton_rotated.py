"""The operator of :mod:`.triton` for rotated Gaussians: six tensors instead of five."""

from torch import Tensor

from ..geometry import Geometry
from .kernel_operator import kernel_operator
from .triton_launch import fake_backward, fake_forward, run_backward, run_forward

__all__ = ['rotated_attention']


def _forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    correlation: Tensor,
    height: int,
    width: int,
    num_prefix_tokens: int,
    eps: float,
    max_sq_distance: float,
    scale: float,
) -> tuple[Tensor, Tensor]:
    geometry = Geometry(height, width, num_prefix_tokens, eps, max_sq_distance)
    return run_forward(q, k, v, variance, alpha, correlation, geometry, scale)


def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    variance: Tensor,
    alpha: Tensor,
    correlation: Tensor,
    out: Tensor,
    lse: Tensor,
    d_out: Tensor,
    height: int,
    width: int,
    num_prefix_tokens: int,
    eps: float,
    max_sq_distance: float,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    geometry = Geometry(height, width, num_prefix_tokens, eps, max_sq_distance)
    d_q, d_k, d_v, d_variance, d_alpha, d_correlation = run_backward(
        q, k, v, variance, alpha, correlation, out, lse, d_out, geometry, scale
    )
    return d_q, d_k, d_v, d_variance, d_alpha, d_correlation


def _fake_backward(q, k, v, variance, alpha, correlation, *_):
    d_correlation = correlation.new_empty(correlation.shape)
    return *fake_backward(q, k, v, variance, alpha), d_correlation


rotated_attention = kernel_operator(
    'rotated_gaussian_attention',
    _forward,
    fake_forward,
    _backward,
    _fake_backward,
    num_tensors=6,
    aux_outputs=1,
)
