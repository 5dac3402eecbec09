"""Triton kernels of :mod:`.triton_attention`; import them only where Triton is installed.

Common to all three:

- A program takes one block of queries or keys of one head; blocks of one head lie next to each
  other, all on grid axis x, the only one without a limit of 65,535.
- Keys come in tiles of ROWS × COLS patches of the image, so the Gaussian of a tile is a row
  factor times a column factor: ROWS + COLS exponentials per query, not ROWS · COLS. They are
  written elementwise on the whole tile; the compiler sees which ones are equal (key ``j`` is row
  ``j // COLS``, column ``j % COLS``) and computes those once.
- Prefix tokens have no bias. FOLD says that they fit into the key columns right of the image
  that pad a tile; else they get tiles of their own.
- Two fused multiply-adds a logit. Forward, where a maximum is taken first:
  ``t = q·k + (α/scale)·gy·gx``, ``p = exp2(t·scale·log2(e) − offset)``. Backward:
  ``p = exp2(q·k·scale·log2(e) + (α·log2(e)·gy·gx − lse))``. ``lse`` is in base 2.
- UPCAST is for the interpreter, whose bfloat16 arithmetic is wrong.
- ROTATED: kernels with a correlation ρ, whose Gaussian is ``exp2(-(dy·slope_y - dx·slope_x)²)``
  times a factor of the column: one exponential per key. The slopes take the place of
  the rate of rows. Without it the correlation is None, and nothing of this is compiled.
"""

import triton
import triton.language as tl

__all__ = ['backward_keys_kernel', 'backward_queries_kernel', 'forward_kernel']

LOG2_E = tl.constexpr(1.4426950408889634)
# Numbers that change with the image must not start a compilation, whatever divides them. (Another
# tile, cut or padding still does: the grids of a kind share a kernel.)
_PLAIN_INTS = [
    *('num_heads', 'num_tokens', 'height', 'width', 'num_prefix'),
    *('var_b', 'var_h', 'alpha_b', 'alpha_h', 'rho_b', 'rho_h'),
]
_PLAIN_INTS_OF_KEYS = _PLAIN_INTS[:5]


@triton.jit
def _load_tokens(
    base, tokens, valid, stride, MASKED: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """Rows of a ``[tokens, DIM]`` matrix, zeros where not ``valid`` and beyond DIM."""
    dim = tl.arange(0, BLOCK_DIM)
    pointers = base + tokens[:, None] * stride + dim[None, :]
    if DIM < BLOCK_DIM:
        x = tl.load(pointers, mask=valid[:, None] & (dim < DIM)[None, :], other=0.0)
    elif MASKED:
        x = tl.load(pointers, mask=valid[:, None], other=0.0)
    else:
        x = tl.load(pointers)
    if UPCAST:
        x = x.to(tl.float32)
    return x


@triton.jit
def _store_tokens(
    base, x, tokens, valid, stride, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    dim = tl.arange(0, BLOCK_DIM)
    mask = valid[:, None] & (dim < DIM)[None, :]
    pointers = base + tokens[:, None] * stride + dim[None, :]
    if UPCAST:
        # The interpreter cuts to bfloat16 where GPUs round to nearest, ties to even.
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        x = bits.to(tl.float32, bitcast=True)
    tl.store(pointers, x.to(base.dtype.element_ty), mask=mask)


@triton.jit
def _coordinates(patch, width):
    # A division of integers takes longer; half a patch keeps clear of rounding.
    patch = patch.to(tl.float32)
    row = tl.floor((patch + 0.5) / width)
    return row, patch - row * width


@triton.jit
def _load_gaussians(
    variance, alpha, tokens, num_tokens, num_prefix, width, eps, var_p, var_m, alpha_p
):  # fmt: skip
    """Strength, variances and coordinates of a block of queries, all ``[BLOCK]`` float32.

    Queries without a Gaussian get strength 0 and variance 1.
    """
    patch = tokens - num_prefix
    spatial = (patch >= 0) & (tokens < num_tokens)
    strength = tl.load(alpha + patch * alpha_p, mask=spatial, other=0.0)
    var_y = tl.load(variance + patch * var_p, mask=spatial, other=1.0)
    var_x = tl.load(variance + patch * var_p + var_m, mask=spatial, other=1.0)
    var_y = tl.where(spatial, var_y + eps, 1.0)
    var_x = tl.where(spatial, var_x + eps, 1.0)
    row, col = _coordinates(patch, width)
    return strength, var_y, var_x, row, col


@triton.jit
def _squared_distance(position, coordinate, max_sq_distance, CLAMP: tl.constexpr):
    difference = position[:, None] - coordinate[None, :]
    squared = difference * difference
    if CLAMP:
        squared = tl.minimum(squared, max_sq_distance)
    return squared


@triton.jit
def _distance(position, coordinate, max_sq_distance, CLAMP: tl.constexpr):
    """From positions to coordinates, with the limit of :func:`_squared_distance`."""
    difference = coordinate[None, :] - position[:, None]
    if CLAMP:
        limit = tl.sqrt(max_sq_distance)
        difference = tl.minimum(tl.maximum(difference, -limit), limit)
    return difference


@triton.jit
def _load_slopes(correlation, tokens, num_tokens, num_prefix, var_y, var_x, rho_p):
    """Correlation of a block of queries, ``steepness = √(log2(e) / 2(1 - ρ²))``, that over the
    standard deviation of rows, and times ρ over that of columns. All ``[BLOCK]`` float32.
    """
    patch = tokens - num_prefix
    spatial = (patch >= 0) & (tokens < num_tokens)
    rho = tl.load(correlation + patch * rho_p, mask=spatial, other=0.0)
    steepness = tl.sqrt(0.5 * LOG2_E / ((1.0 - rho) * (1.0 + rho)))
    return rho, steepness, steepness / tl.sqrt(var_y), rho * steepness / tl.sqrt(var_x)


@triton.jit
def _strip_tokens(
    key, cols, height, width, num_prefix, num_strips, COLS: tl.constexpr, FOLD: tl.constexpr
):  # fmt: skip
    """Keys of the tiles of one strip of columns: in the tile that starts at image row ``r``,
    ``first + r·step`` is the token of key ``j``, and it exists where ``r < limit``.
    """
    row = key // COLS
    first = num_prefix + row * width + cols
    step = tl.where(cols < width, width, 0)
    limit = tl.where(cols < width, height - row, 0)
    if FOLD:
        spare = num_strips * COLS - width
        slot = row * spare + cols - width
        first = tl.where(cols < width, first, slot)
        step = tl.where(cols < width, width, spare)
        limit = tl.where(cols < width, limit, (num_prefix - slot + spare - 1) // spare)
    return first, step, limit


@triton.jit
def _sum_rows(x, ROWS: tl.constexpr, COLS: tl.constexpr):
    """``[BLOCK, ROWS·COLS]`` to ``[BLOCK, COLS]``; the rows of a column lie in one thread."""
    return tl.sum(tl.reshape(x, [x.shape[0], ROWS, COLS]), 1)


@triton.jit
def _softmax_step(
    t, v, acc, total, peak, to_log2, PRECISION: tl.constexpr
):  # fmt: skip
    """One tile of the online softmax; ``peak`` is in the units of ``t``."""
    new_peak = tl.maximum(peak, tl.max(t, 1))
    offset = new_peak * to_log2
    p = tl.exp2(t * to_log2 - offset[:, None])
    correction = tl.exp2(peak * to_log2 - offset)
    total = total * correction + tl.sum(p, 1)
    acc = acc * correction[:, None]
    acc = tl.dot(p.to(v.dtype), v, acc, input_precision=PRECISION)
    return acc, total, new_peak


@triton.jit(do_not_specialize=_PLAIN_INTS)
def forward_kernel(
    q, k, v, variance, alpha, correlation, out, lse,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n,
    var_b, var_h, var_p, var_m, alpha_b, alpha_h, alpha_p, rho_b, rho_h, rho_p,
    out_b, out_h, out_n,
    num_heads, num_tokens, height, width, num_prefix, scale, eps, max_sq_distance,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    COLS: tl.constexpr, CLAMP: tl.constexpr, MASKED: tl.constexpr, PREFIX: tl.constexpr,
    FOLD: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr, ROTATED: tl.constexpr,
):  # fmt: skip
    """``out`` and ``lse`` (float32 ``[B, heads, N]``) of one block of queries."""
    num_blocks = tl.cdiv(num_tokens, BLOCK)
    batch_head = tl.program_id(0) // num_blocks
    batch = (batch_head // num_heads).to(tl.int64)
    head = (batch_head % num_heads).to(tl.int64)
    tokens = (tl.program_id(0) % num_blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = tokens < num_tokens
    k += batch * k_b + head * k_h
    v += batch * v_b + head * v_h

    q_base = q + batch * q_b + head * q_h
    q_tile = _load_tokens(q_base, tokens, inside, q_n, True, DIM, BLOCK_DIM, UPCAST)
    strength, var_y, var_x, row, col = _load_gaussians(
        variance + batch * var_b + head * var_h, alpha + batch * alpha_b + head * alpha_h,
        tokens, num_tokens, num_prefix, width, eps, var_p, var_m, alpha_p,
    )  # fmt: skip
    strength = strength / scale
    rate_y = -0.5 * LOG2_E / var_y
    rate_x = -0.5 * LOG2_E / var_x
    if ROTATED:
        _, _, slope_y, slope_x = _load_slopes(
            correlation + batch * rho_b + head * rho_h,
            tokens, num_tokens, num_prefix, var_y, var_x, rho_p,
        )  # fmt: skip

    to_log2 = scale * LOG2_E
    acc = tl.zeros([BLOCK, BLOCK_DIM], tl.float32)
    total = tl.zeros([BLOCK], tl.float32)
    peak = tl.full([BLOCK], float('-inf'), tl.float32)

    if PREFIX and not FOLD:
        for start in range(0, num_prefix, 16):
            keys = start + tl.arange(0, 16)
            valid = keys < num_prefix
            k_tile = _load_tokens(k, keys, valid, k_n, True, DIM, BLOCK_DIM, UPCAST)
            v_tile = _load_tokens(v, keys, valid, v_n, True, DIM, BLOCK_DIM, UPCAST)
            t = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
            t = tl.where(valid[None, :], t, float('-inf'))
            acc, total, peak = _softmax_step(t, v_tile, acc, total, peak, to_log2, PRECISION)

    num_strips = tl.cdiv(width, COLS)
    key = tl.arange(0, ROWS * COLS)
    for strip in range(0, num_strips):
        cols = strip * COLS + key % COLS
        first, step, limit = _strip_tokens(
            key, cols, height, width, num_prefix, num_strips, COLS, FOLD
        )
        to_col = _squared_distance(col, cols.to(tl.float32), max_sq_distance, CLAMP)
        col_factor = tl.exp2(to_col * rate_x[:, None])
        if FOLD:
            col_factor = tl.where((cols < width)[None, :], col_factor, 0.0)
        if ROTATED:
            col_factor *= strength[:, None]
            col_term = _distance(col, cols.to(tl.float32), max_sq_distance, CLAMP)
            col_term *= slope_x[:, None]
        for first_row in range(0, height, ROWS):
            keys = first + first_row * step
            valid = first_row < limit
            k_tile = _load_tokens(k, keys, valid, k_n, MASKED, DIM, BLOCK_DIM, UPCAST)
            v_tile = _load_tokens(v, keys, valid, v_n, MASKED, DIM, BLOCK_DIM, UPCAST)
            t = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
            rows = (first_row + key // COLS).to(tl.float32)
            if ROTATED:
                z = _distance(row, rows, max_sq_distance, CLAMP) * slope_y[:, None] - col_term
                row_factor = tl.exp2(-z * z)
            else:
                to_row = _squared_distance(row, rows, max_sq_distance, CLAMP)
                row_factor = strength[:, None] * tl.exp2(to_row * rate_y[:, None])
            t += row_factor * col_factor
            if MASKED:
                t = tl.where(valid[None, :], t, float('-inf'))
            acc, total, peak = _softmax_step(t, v_tile, acc, total, peak, to_log2, PRECISION)

    out += batch * out_b + head * out_h
    _store_tokens(out, acc / total[:, None], tokens, inside, out_n, DIM, BLOCK_DIM, UPCAST)
    lse += batch_head.to(tl.int64) * num_tokens
    tl.store(lse + tokens, peak * to_log2 + tl.log2(total), mask=inside)


@triton.jit(do_not_specialize=_PLAIN_INTS)
def backward_queries_kernel(
    q, k, v, variance, alpha, correlation, out, lse, d_out, d_q, d_variance, d_alpha,
    d_correlation, table,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n,
    var_b, var_h, var_p, var_m, alpha_b, alpha_h, alpha_p, rho_b, rho_h, rho_p,
    out_b, out_h, out_n, do_b, do_h, do_n, dq_b, dq_h, dq_n,
    num_heads, num_tokens, height, width, num_prefix, scale, eps, max_sq_distance,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    COLS: tl.constexpr, CLAMP: tl.constexpr, MASKED: tl.constexpr, PREFIX: tl.constexpr,
    FOLD: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr, ROTATED: tl.constexpr,
):  # fmt: skip
    """Gradients of one block of queries and of its Gaussians.

    ``d_q``, ``d_variance`` (``[B, heads, H·W, 2]``) and ``d_alpha`` (``[B, heads, H·W]``),
    both contiguous float32. For :func:`backward_keys_kernel`, ``table`` (float32
    ``[4, B, heads, N]``): ``δ = Σ d_out·out``, the strength times log2(e), and the factors
    of the squared distances to rows and columns in the exponent. ROTATED: ``d_correlation`` as
    ``d_alpha``, and ``table`` has the slopes of rows and columns instead of the factor of rows,
    the latter at its end (``[5, B, heads, N]``).
    """
    num_blocks = tl.cdiv(num_tokens, BLOCK)
    batch_head = tl.program_id(0) // num_blocks
    batch = (batch_head // num_heads).to(tl.int64)
    head = (batch_head % num_heads).to(tl.int64)
    batch_head = batch_head.to(tl.int64)
    tokens = (tl.program_id(0) % num_blocks) * BLOCK + tl.arange(0, BLOCK)
    inside = tokens < num_tokens
    k += batch * k_b + head * k_h
    v += batch * v_b + head * v_h

    out_base = out + batch * out_b + head * out_h
    do_base = d_out + batch * do_b + head * do_h
    q_base = q + batch * q_b + head * q_h
    do_tile = _load_tokens(do_base, tokens, inside, do_n, True, DIM, BLOCK_DIM, UPCAST)
    out_tile = _load_tokens(out_base, tokens, inside, out_n, True, DIM, BLOCK_DIM, UPCAST)
    row_delta = tl.sum(do_tile.to(tl.float32) * out_tile.to(tl.float32), 1)
    q_tile = _load_tokens(q_base, tokens, inside, q_n, True, DIM, BLOCK_DIM, UPCAST)
    # +inf makes the probabilities of the padding 0.
    row_lse = tl.load(lse + batch_head * num_tokens + tokens, mask=inside, other=float('inf'))
    strength, var_y, var_x, row, col = _load_gaussians(
        variance + batch * var_b + head * var_h, alpha + batch * alpha_b + head * alpha_h,
        tokens, num_tokens, num_prefix, width, eps, var_p, var_m, alpha_p,
    )  # fmt: skip
    rate_y = -0.5 * LOG2_E / var_y
    rate_x = -0.5 * LOG2_E / var_x
    strength_log2 = strength * LOG2_E
    plane = (tl.num_programs(0) // num_blocks).to(tl.int64) * num_tokens
    table += batch_head * num_tokens
    tl.store(table + tokens, row_delta, mask=inside)
    tl.store(table + plane + tokens, strength_log2, mask=inside)
    if ROTATED:
        rho, steepness, slope_y, slope_x = _load_slopes(
            correlation + batch * rho_b + head * rho_h,
            tokens, num_tokens, num_prefix, var_y, var_x, rho_p,
        )  # fmt: skip
        tl.store(table + 2 * plane + tokens, slope_y, mask=inside)
        tl.store(table + 4 * plane + tokens, slope_x, mask=inside)
        sum_gzx = tl.zeros([BLOCK], tl.float32)
    else:
        tl.store(table + 2 * plane + tokens, rate_y, mask=inside)
    tl.store(table + 3 * plane + tokens, rate_x, mask=inside)

    to_log2 = scale * LOG2_E
    dq_tile = tl.zeros([BLOCK, BLOCK_DIM], tl.float32)
    # Σ over keys of dS·gy·gx, and of that times the squared distance to their row or column.
    sum_g = tl.zeros([BLOCK], tl.float32)
    sum_gy = tl.zeros([BLOCK], tl.float32)
    sum_gx = tl.zeros([BLOCK], tl.float32)

    if PREFIX and not FOLD:
        for start in range(0, num_prefix, 16):
            keys = start + tl.arange(0, 16)
            valid = keys < num_prefix
            k_tile = _load_tokens(k, keys, valid, k_n, True, DIM, BLOCK_DIM, UPCAST)
            v_tile = _load_tokens(v, keys, valid, v_n, True, DIM, BLOCK_DIM, UPCAST)
            t = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
            t = tl.where(valid[None, :], t, float('-inf'))
            p = tl.exp2(t * to_log2 - row_lse[:, None])
            dp = tl.dot(do_tile, tl.trans(v_tile), input_precision=PRECISION)
            ds = (p * (dp - row_delta[:, None])).to(k_tile.dtype)
            dq_tile = tl.dot(ds, k_tile, dq_tile, input_precision=PRECISION)

    num_strips = tl.cdiv(width, COLS)
    key = tl.arange(0, ROWS * COLS)
    for strip in range(0, num_strips):
        cols = strip * COLS + key % COLS
        first, step, limit = _strip_tokens(
            key, cols, height, width, num_prefix, num_strips, COLS, FOLD
        )
        to_col = _squared_distance(col, cols.to(tl.float32), max_sq_distance, CLAMP)
        col_factor = tl.exp2(to_col * rate_x[:, None])
        if FOLD:
            col_factor = tl.where((cols < width)[None, :], col_factor, 0.0)
        # Per column of the image: Σ over its rows of dS·gy, and of dS·gy·Dy.
        by_col = tl.zeros([BLOCK, COLS], tl.float32)
        by_col_y = tl.zeros([BLOCK, COLS], tl.float32)
        if ROTATED:
            # gy = exp2(-z²) depends on the column, too. Σ over rows of dS·gy·z; Dy is z².
            by_col_z = tl.zeros([BLOCK, COLS], tl.float32)
            col_term = _distance(col, cols.to(tl.float32), max_sq_distance, CLAMP)
            col_term *= slope_x[:, None]
        for first_row in range(0, height, ROWS):
            keys = first + first_row * step
            valid = first_row < limit
            k_tile = _load_tokens(k, keys, valid, k_n, MASKED, DIM, BLOCK_DIM, UPCAST)
            v_tile = _load_tokens(v, keys, valid, v_n, MASKED, DIM, BLOCK_DIM, UPCAST)
            t = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
            rows = (first_row + key // COLS).to(tl.float32)
            if ROTATED:
                z = _distance(row, rows, max_sq_distance, CLAMP) * slope_y[:, None] - col_term
                to_row = z * z
                row_factor = tl.exp2(-to_row)
            else:
                to_row = _squared_distance(row, rows, max_sq_distance, CLAMP)
                row_factor = tl.exp2(to_row * rate_y[:, None])
            offset = strength_log2[:, None] * row_factor * col_factor - row_lse[:, None]
            if MASKED:
                offset = tl.where(valid[None, :], offset, float('-inf'))
            p = tl.exp2(t * to_log2 + offset)
            dp = tl.dot(do_tile, tl.trans(v_tile), input_precision=PRECISION)
            ds = p * (dp - row_delta[:, None])
            by_col += _sum_rows(ds * row_factor, ROWS, COLS)
            by_col_y += _sum_rows(ds * (row_factor * to_row), ROWS, COLS)
            if ROTATED:
                by_col_z += _sum_rows(ds * (row_factor * z), ROWS, COLS)
            dq_tile = tl.dot(ds.to(k_tile.dtype), k_tile, dq_tile, input_precision=PRECISION)
        cols = strip * COLS + tl.arange(0, COLS)
        to_col = _squared_distance(col, cols.to(tl.float32), max_sq_distance, CLAMP)
        col_factor = tl.exp2(to_col * rate_x[:, None])
        if FOLD:
            col_factor = tl.where((cols < width)[None, :], col_factor, 0.0)
        by_col *= col_factor
        sum_g += tl.sum(by_col, 1)
        sum_gx += tl.sum(by_col * to_col, 1)
        sum_gy += tl.sum(by_col_y * col_factor, 1)
        if ROTATED:
            dx = _distance(col, cols.to(tl.float32), max_sq_distance, CLAMP)
            sum_gzx += tl.sum(by_col_z * col_factor * dx, 1)

    d_q += batch * dq_b + head * dq_h
    _store_tokens(d_q, dq_tile * scale, tokens, inside, dq_n, DIM, BLOCK_DIM, UPCAST)
    patch = tokens - num_prefix
    spatial = (patch >= 0) & inside
    offset = batch_head * (height * width) + patch
    tl.store(d_alpha + offset, sum_g, mask=spatial)
    half = 0.5 * strength
    if ROTATED:
        # In units of the standard deviations, with u = dy - ρ·dx: Σ M·u², Σ M·u·dx and Σ M·dx².
        # No large terms cancel out in these, as they would in moments of dy and dx.
        sd_x = tl.sqrt(var_x)
        uu, ux, xx = sum_gy / steepness / steepness, sum_gzx / steepness / sd_x, sum_gx / var_x
        s = 1.0 / ((1.0 - rho) * (1.0 + rho))
        tl.store(d_correlation + offset, strength * s * (ux - rho * s * uu), mask=spatial)
        sum_gy = s * (uu + rho * ux) * var_y
        sum_gx = (xx - rho * s * ux) * var_x
    # Two divisions: the square of a small variance would be 0.
    tl.store(d_variance + 2 * offset, half * (sum_gy / var_y / var_y), mask=spatial)
    tl.store(d_variance + 2 * offset + 1, half * (sum_gx / var_x / var_x), mask=spatial)


@triton.jit(do_not_specialize=_PLAIN_INTS_OF_KEYS)
def backward_keys_kernel(
    q, k, v, lse, table, d_out, d_k, d_v,
    q_b, q_h, q_n, k_b, k_h, k_n, v_b, v_h, v_n, do_b, do_h, do_n, dk_b, dk_h, dk_n,
    dv_b, dv_h, dv_n,
    num_heads, num_tokens, height, width, num_prefix, scale, eps, max_sq_distance,
    DIM: tl.constexpr, BLOCK_DIM: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
    COLS: tl.constexpr, CLAMP: tl.constexpr, MASKED: tl.constexpr, PREFIX: tl.constexpr,
    FOLD: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr, ROTATED: tl.constexpr,
    WAIT: tl.constexpr,
):  # fmt: skip
    """``d_k`` and ``d_v`` of one tile of keys, over all blocks of queries.

    ``table`` is of :func:`backward_queries_kernel`. Nothing is masked along the keys: rows of keys
    that do not exist are not stored. WAIT is for compute capability 9 (Hopper) alone: with it,
    Triton 3.6 cannot compile the kernel for capability 10.
    """
    num_strips = tl.cdiv(width, COLS)
    num_grid_tiles = num_strips * tl.cdiv(height, ROWS)
    num_tiles = num_grid_tiles
    if PREFIX and not FOLD:
        num_tiles += tl.cdiv(num_prefix, ROWS * COLS)
    batch_head = tl.program_id(0) // num_tiles
    tile = tl.program_id(0) % num_tiles
    batch = (batch_head // num_heads).to(tl.int64)
    head = (batch_head % num_heads).to(tl.int64)
    batch_head = batch_head.to(tl.int64)

    key = tl.arange(0, ROWS * COLS)
    first_row = (tile // num_strips) * ROWS
    cols = (tile % num_strips) * COLS + key % COLS
    rows = (first_row + key // COLS).to(tl.float32)
    first, step, limit = _strip_tokens(key, cols, height, width, num_prefix, num_strips, COLS, FOLD)
    keys = first + first_row * step
    valid = first_row < limit
    # Right of the image the Gaussian is 0; a tile of prefix tokens has no image.
    image_width = width
    if PREFIX and not FOLD:
        in_image = tile < num_grid_tiles
        prefix_keys = (tile - num_grid_tiles) * (ROWS * COLS) + key
        keys = tl.where(in_image, keys, prefix_keys)
        valid = tl.where(in_image, valid, prefix_keys < num_prefix)
        image_width = tl.where(in_image, width, 0)

    q += batch * q_b + head * q_h
    d_out += batch * do_b + head * do_h
    plane = (tl.num_programs(0) // num_tiles).to(tl.int64) * num_tokens
    lse += batch_head * num_tokens
    delta = table + batch_head * num_tokens
    strengths = delta + plane
    rates_y = strengths + plane
    rates_x = rates_y + plane
    k_base = k + batch * k_b + head * k_h
    v_base = v + batch * v_b + head * v_h
    k_tile = _load_tokens(k_base, keys, valid, k_n, True, DIM, BLOCK_DIM, UPCAST)
    v_tile = _load_tokens(v_base, keys, valid, v_n, True, DIM, BLOCK_DIM, UPCAST)

    to_log2 = scale * LOG2_E
    dk_tile = tl.zeros([ROWS * COLS, BLOCK_DIM], tl.float32)
    dv_tile = tl.zeros([ROWS * COLS, BLOCK_DIM], tl.float32)
    for start in range(0, num_tokens, BLOCK):
        tokens = start + tl.arange(0, BLOCK)
        inside = tokens < num_tokens
        q_tile = _load_tokens(q, tokens, inside, q_n, True, DIM, BLOCK_DIM, UPCAST)
        do_tile = _load_tokens(d_out, tokens, inside, do_n, True, DIM, BLOCK_DIM, UPCAST)
        # +inf makes the probabilities of the padding 0.
        row_lse = tl.load(lse + tokens, mask=inside, other=float('inf'))
        row_delta = tl.load(delta + tokens, mask=inside, other=0.0)
        strength = tl.load(strengths + tokens, mask=inside, other=0.0)
        rate_y = tl.load(rates_y + tokens, mask=inside, other=0.0)
        rate_x = tl.load(rates_x + tokens, mask=inside, other=0.0)
        row, col = _coordinates(tokens - num_prefix, width)
        if not ROTATED:
            to_row = _squared_distance(row, rows, max_sq_distance, CLAMP)
        to_col = _squared_distance(col, cols.to(tl.float32), max_sq_distance, CLAMP)
        if ROTATED:
            slope_x = tl.load(rates_x + plane + tokens, mask=inside, other=0.0)
            dx = _distance(col, cols.to(tl.float32), max_sq_distance, CLAMP)
            z = _distance(row, rows, max_sq_distance, CLAMP) * rate_y[:, None]
            z -= dx * slope_x[:, None]
            row_factor = strength[:, None] * tl.exp2(-z * z)
        else:
            row_factor = strength[:, None] * tl.exp2(to_row * rate_y[:, None])
        col_factor = tl.exp2(to_col * rate_x[:, None])
        if PREFIX:
            col_factor = tl.where((cols < image_width)[None, :], col_factor, 0.0)
        t = tl.dot(q_tile, tl.trans(k_tile), input_precision=PRECISION)
        dp = tl.dot(do_tile, tl.trans(v_tile), input_precision=PRECISION)
        p = tl.exp2(t * to_log2 + (row_factor * col_factor - row_lse[:, None]))
        dv_tile = tl.dot(tl.trans(p.to(do_tile.dtype)), do_tile, dv_tile, input_precision=PRECISION)
        ds = (p * (dp - row_delta[:, None])).to(q_tile.dtype)
        dk_tile = tl.dot(tl.trans(ds), q_tile, dk_tile, input_precision=PRECISION)
        if WAIT:
            # Always true and no instruction, but Triton then waits for the product here. If it is
            # still in flight at the loop's end, ptxas serialises every product of the loop.
            dk_tile = tl.where(start >= 0, dk_tile, 0.0)

    d_k += batch * dk_b + head * dk_h
    d_v += batch * dv_b + head * dv_h
    _store_tokens(d_k, dk_tile * scale, keys, valid, dk_n, DIM, BLOCK_DIM, UPCAST)
    _store_tokens(d_v, dv_tile, keys, valid, dv_n, DIM, BLOCK_DIM, UPCAST)
