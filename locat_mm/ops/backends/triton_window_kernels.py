"""Triton kernels of :mod:`.triton_windows`; import them only where Triton is installed.

A window has few tokens (Swin: 49), so one tile holds all logits of a window and head. A program
takes the same window of several images: the dense bias (relative position bias plus mask) is read
once for them, and its gradient is summed in registers. A window of an image is a batch entry;
those of one image lie next to each other. The backward pass computes the softmax again, so nothing
but the inputs is kept for it. Logits are in base 2.
"""

import triton
import triton.language as tl

from .triton_kernels import LOG2_E, _coordinates, _load_tokens, _store_tokens

__all__ = ['window_backward_kernel', 'window_forward_kernel']

# Numbers that change with the image or batch must not start a compilation.
_PLAIN_INTS = [
    *('num_heads', 'num_windows', 'num_images', 'per_program', 'num_tokens'),
    *('height', 'width', 'num_prefix', 'var_b', 'var_h', 'alpha_b', 'alpha_h', 'rho_b', 'rho_h'),
]


@triton.jit
def _where(num_heads, num_windows, num_images, per_program):
    """Head, window, part of the images, and the first of them and the one behind the last."""
    head = (tl.program_id(0) % num_heads).to(tl.int64)
    window = (tl.program_id(0) // num_heads) % num_windows
    part = tl.program_id(0) // num_heads // num_windows
    first = part * per_program
    return head, window, part, first, tl.minimum(first + per_program, num_images)


@triton.jit
def _slots(num_tokens, height, width, num_prefix, BLOCK: tl.constexpr, COLS: tl.constexpr):
    """The token in each slot of the tile, whether there is one, and its row and column.

    With COLS the tile has the shape of the window, padded to a power of 2: the compiler sees
    which slots share a row or a column, and computes their Gaussians once.
    """
    slot = tl.arange(0, BLOCK)
    if COLS:
        row, col = slot // COLS, slot % COLS
        tokens = row * width + col
        return tokens, (col < width) & (row < height), row.to(tl.float32), col.to(tl.float32)
    else:
        row, col = _coordinates(slot - num_prefix, width)
        return slot, slot < num_tokens, row, col


@triton.jit
def _load_bias(bias, tokens, inside, stride):
    """``[BLOCK, BLOCK]`` float32 in base 2, -inf for keys that do not exist."""
    pointers = bias + tokens[:, None] * stride + tokens[None, :]
    x = tl.load(pointers, mask=inside[:, None] & inside[None, :], other=0.0).to(tl.float32)
    return tl.where(inside[None, :], x * LOG2_E, float('-inf'))


@triton.jit
def _load_gaussians(
    variance, alpha, correlation, tokens, inside, num_prefix, eps, var_p, var_m, alpha_p, rho_p,
    ROTATED: tl.constexpr,
):  # fmt: skip
    """Strength, variances and correlation of all queries, ``[BLOCK]`` float32.

    Queries without a Gaussian get strength 0 and variance 1.
    """
    patch = tokens - num_prefix
    spatial = (patch >= 0) & inside
    strength = tl.load(alpha + patch * alpha_p, mask=spatial, other=0.0)
    var_y = tl.load(variance + patch * var_p, mask=spatial, other=1.0)
    var_x = tl.load(variance + patch * var_p + var_m, mask=spatial, other=1.0)
    rho = strength
    if ROTATED:
        rho = tl.load(correlation + patch * rho_p, mask=spatial, other=0.0)
    return strength, tl.where(spatial, var_y + eps, 1.0), tl.where(spatial, var_x + eps, 1.0), rho


@triton.jit
def _scaled_distances(key, query, rate, max_sq_distance, CLAMP: tl.constexpr):
    """Distances of queries to keys along one axis times a rate of each query, ``[BLOCK, BLOCK]``.

    The rate is inside the difference: else the compiler would keep the distances, which are the
    same for all images, in registers.
    """
    x = key[None, :] * rate[:, None] - (query * rate)[:, None]
    if CLAMP:
        limit = (tl.sqrt(max_sq_distance) * rate)[:, None]
        x = tl.minimum(tl.maximum(x, -limit), limit)
    return x


@triton.jit
def _logits(
    q_tile, k_tile, bias_tile, strength, var_y, var_x, rho, row, col, spatial, scale,
    max_sq_distance, CLAMP: tl.constexpr, PREFIX: tl.constexpr, PRECISION: tl.constexpr,
    ROTATED: tl.constexpr,
):  # fmt: skip
    """``[BLOCK, BLOCK]`` in base 2; ``row, col`` of all slots."""
    a = _scaled_distances(row, row, 1.0 / tl.sqrt(var_y), max_sq_distance, CLAMP)
    b = _scaled_distances(col, col, 1.0 / tl.sqrt(var_x), max_sq_distance, CLAMP)
    gaussian = (strength * LOG2_E)[:, None] * tl.exp2(-0.5 * LOG2_E * b * b)
    if ROTATED:
        a -= rho[:, None] * b
        a *= tl.sqrt(1.0 / ((1.0 - rho) * (1.0 + rho)))[:, None]
    gaussian *= tl.exp2(-0.5 * LOG2_E * a * a)
    if PREFIX:
        gaussian = tl.where(spatial[None, :], gaussian, 0.0)
    t = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION) * (scale * LOG2_E)
    # The bias last: the layout of its load would be that of all terms that are added to it.
    t += gaussian
    return t + bias_tile


@triton.jit(do_not_specialize=_PLAIN_INTS)
def window_forward_kernel(
    q, k, v, variance, alpha, correlation, bias, out,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n,
    var_b, var_h, var_p, var_m, alpha_b, alpha_h, alpha_p, rho_b, rho_h, rho_p,
    bias_w, bias_h, bias_n, out_b, out_h, out_n,
    num_heads, num_windows, num_images, per_program, num_tokens, height, width, num_prefix,
    scale, eps, max_sq_distance,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK: tl.constexpr, COLS: tl.constexpr,
    CLAMP: tl.constexpr, PREFIX: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
    ROTATED: tl.constexpr,
):  # fmt: skip
    """``out`` of one window and head, for several images."""
    head, window, _, first, last = _where(num_heads, num_windows, num_images, per_program)
    tokens, inside, row, col = _slots(num_tokens, height, width, num_prefix, BLOCK, COLS)
    bias += window.to(tl.int64) * bias_w + head * bias_h
    bias_tile = _load_bias(bias, tokens, inside, bias_n)
    for image in range(first, last):
        batch = (image * num_windows + window).to(tl.int64)
        q_base, k_base = q + batch * q_b + head * q_h, k + batch * k_b + head * k_h
        q_tile = _load_tokens(q_base, tokens, inside, q_n, True, DIM, BLOCK_DIM, UPCAST)
        k_tile = _load_tokens(k_base, tokens, inside, k_n, True, DIM, BLOCK_DIM, UPCAST)
        strength, var_y, var_x, rho = _load_gaussians(
            variance + batch * var_b + head * var_h, alpha + batch * alpha_b + head * alpha_h,
            correlation + batch * rho_b + head * rho_h if ROTATED else correlation,
            tokens, inside, num_prefix, eps, var_p, var_m, alpha_p, rho_p, ROTATED,
        )  # fmt: skip
        t = _logits(
            q_tile, k_tile, bias_tile, strength, var_y, var_x, rho, row, col,
            tokens >= num_prefix, scale, max_sq_distance, CLAMP, PREFIX, PRECISION, ROTATED,
        )  # fmt: skip
        p = tl.exp2(t - tl.max(t, 1)[:, None])
        v_base = v + batch * v_b + head * v_h
        v_tile = _load_tokens(v_base, tokens, inside, v_n, True, DIM, BLOCK_DIM, UPCAST)
        acc = tl.dot(p.to(v_tile.dtype), v_tile, input_precision=PRECISION)
        acc *= (1.0 / tl.sum(p, 1))[:, None]
        out_base = out + batch * out_b + head * out_h
        _store_tokens(out_base, acc, tokens, inside, out_n, DIM, BLOCK_DIM, UPCAST)


@triton.jit(do_not_specialize=_PLAIN_INTS)
def window_backward_kernel(
    q, k, v, variance, alpha, correlation, bias, d_out,
    d_q, d_k, d_v, d_variance, d_alpha, d_correlation, d_bias,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n,
    var_b, var_h, var_p, var_m, alpha_b, alpha_h, alpha_p, rho_b, rho_h, rho_p,
    bias_w, bias_h, bias_n, do_b, do_h, do_n, dq_b, dq_h, dq_n, dk_b, dk_h, dk_n, dv_b, dv_h, dv_n,
    num_heads, num_windows, num_images, per_program, num_tokens, height, width, num_prefix,
    scale, eps, max_sq_distance,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK: tl.constexpr, COLS: tl.constexpr,
    CLAMP: tl.constexpr, PREFIX: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
    ROTATED: tl.constexpr,
):  # fmt: skip
    """All gradients of one window and head, for several images.

    ``d_variance`` (``[B, heads, H·W, 2]``), ``d_alpha`` and ``d_correlation`` (``[B, heads, H·W]``)
    are contiguous float32. ``d_bias`` (float32 ``[parts, windows, heads, N, N]``) has the sums over
    the images of each program, which the host adds up.
    """
    head, window, part, first, last = _where(num_heads, num_windows, num_images, per_program)
    tokens, inside, row, col = _slots(num_tokens, height, width, num_prefix, BLOCK, COLS)
    bias += window.to(tl.int64) * bias_w + head * bias_h
    bias_tile = _load_bias(bias, tokens, inside, bias_n)
    sum_ds = tl.zeros([BLOCK, BLOCK], tl.float32)
    for image in range(first, last):
        batch = (image * num_windows + window).to(tl.int64)
        q_base, k_base = q + batch * q_b + head * q_h, k + batch * k_b + head * k_h
        q_tile = _load_tokens(q_base, tokens, inside, q_n, True, DIM, BLOCK_DIM, UPCAST)
        k_tile = _load_tokens(k_base, tokens, inside, k_n, True, DIM, BLOCK_DIM, UPCAST)
        strength, var_y, var_x, rho = _load_gaussians(
            variance + batch * var_b + head * var_h, alpha + batch * alpha_b + head * alpha_h,
            correlation + batch * rho_b + head * rho_h if ROTATED else correlation,
            tokens, inside, num_prefix, eps, var_p, var_m, alpha_p, rho_p, ROTATED,
        )  # fmt: skip
        t = _logits(
            q_tile, k_tile, bias_tile, strength, var_y, var_x, rho, row, col,
            tokens >= num_prefix, scale, max_sq_distance, CLAMP, PREFIX, PRECISION, ROTATED,
        )  # fmt: skip
        p = tl.exp2(t - tl.max(t, 1)[:, None])
        p *= (1.0 / tl.sum(p, 1))[:, None]

        v_base, do_base = v + batch * v_b + head * v_h, d_out + batch * do_b + head * do_h
        v_tile = _load_tokens(v_base, tokens, inside, v_n, True, DIM, BLOCK_DIM, UPCAST)
        do_tile = _load_tokens(do_base, tokens, inside, do_n, True, DIM, BLOCK_DIM, UPCAST)
        dv_tile = tl.dot(tl.trans(p.to(do_tile.dtype)), do_tile, input_precision=PRECISION)
        dv_base = d_v + batch * dv_b + head * dv_h
        _store_tokens(dv_base, dv_tile, tokens, inside, dv_n, DIM, BLOCK_DIM, UPCAST)

        dp = tl.dot(do_tile, tl.trans(v_tile), input_precision=PRECISION)
        # Rows of queries that do not exist have d_out = 0, so ds = 0.
        ds = p * (dp - tl.sum(p * dp, 1)[:, None])
        sum_ds += ds
        dq_tile = tl.dot(ds.to(k_tile.dtype), k_tile, input_precision=PRECISION) * scale
        dq_base = d_q + batch * dq_b + head * dq_h
        _store_tokens(dq_base, dq_tile, tokens, inside, dq_n, DIM, BLOCK_DIM, UPCAST)
        dk_tile = tl.dot(tl.trans(ds.to(q_tile.dtype)), q_tile, input_precision=PRECISION) * scale
        dk_base = d_k + batch * dk_b + head * dk_h
        _store_tokens(dk_base, dk_tile, tokens, inside, dk_n, DIM, BLOCK_DIM, UPCAST)

        # Of G = exp(-½(a² - 2ρab + b²)/(1 - ρ²)), where a² changes by -a²/v with the variance v:
        # ½G·a(a - ρb)/(v(1 - ρ²)), and with ρ: G·(a - ρb)(b - ρa)/(1 - ρ²)². The distances are
        # computed again, over the variances: to keep them takes registers.
        patch = tokens - num_prefix
        spatial = (patch >= 0) & inside
        index = (batch * num_heads + head) * height * width + patch
        a = _scaled_distances(row, row, 1.0 / var_y, max_sq_distance, CLAMP)
        b = _scaled_distances(col, col, 1.0 / var_x, max_sq_distance, CLAMP)
        ds *= tl.exp2(-0.5 * LOG2_E * var_x[:, None] * b * b)
        if ROTATED:
            ratio = tl.sqrt(var_x / var_y)
            c = a - (rho * ratio)[:, None] * b
            rate = var_y / ((1.0 - rho) * (1.0 + rho))
            ds *= tl.exp2(-0.5 * LOG2_E * rate[:, None] * c * c)
        else:
            ds *= tl.exp2(-0.5 * LOG2_E * var_y[:, None] * a * a)
        if PREFIX:
            ds = tl.where((tokens >= num_prefix)[None, :], ds, 0.0)
        tl.store(d_alpha + index, tl.sum(ds, 1), mask=spatial)
        if ROTATED:
            left = strength / ((1.0 - rho) * (1.0 + rho))
            e = b - (rho / ratio)[:, None] * a
            d_rho = left / ((1.0 - rho) * (1.0 + rho)) * tl.sqrt(var_y * var_x)
            tl.store(d_correlation + index, d_rho * tl.sum(ds * c * e, 1), mask=spatial)
            dy, dx = left * tl.sum(ds * a * c, 1), left * tl.sum(ds * b * e, 1)
        else:
            dy, dx = strength * tl.sum(ds * a * a, 1), strength * tl.sum(ds * b * b, 1)
        tl.store(d_variance + index * 2, 0.5 * dy, mask=spatial)
        tl.store(d_variance + index * 2 + 1, 0.5 * dx, mask=spatial)

    plane = (part * num_windows + window).to(tl.int64) * num_heads + head
    d_bias += plane * num_tokens * num_tokens
    pointers = d_bias + tokens[:, None] * num_tokens + tokens[None, :]
    tl.store(pointers, sum_ds, mask=inside[:, None] & inside[None, :])
