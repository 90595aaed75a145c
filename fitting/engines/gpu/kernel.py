# mypy: ignore-errors
# Kernels are written in the language of Triton, which types of Python do not describe.
# ruff: noqa: RUF005 - it has no starred expressions
"""A whole fit in one kernel: one program owns one field for all steps of a launch.

Loss and gradient are sums over points, so a program takes the points in tiles and runs forward and
backward of a tile before the next one; only the gradients of the weights persist, in registers.
Weights and moments stay in the caches: in registers they would not leave room for a tile.

No program writes what another one reads and there are no atomics: a field's bits depend neither on
its place nor on its neighbours.
"""

import triton
import triton.language as tl

from fitting.engines.gpu.descent import descend
from fitting.engines.gpu.passes import chain_gradients, filter_gradients


@triton.jit(do_not_specialize=["num_steps", "num_points", "num_chosen", "coords_stride"])
def fit_kernel(
    fields_ptr,  # [A] places of the fields to fit, one for each program
    weights_ptr,  # [B, R] padded rows, see Layout
    first_ptr,  # [B, R] first moments, or SGD's velocities
    second_ptr,  # [B, R] second moments
    coords_ptr,  # [Q, d], or [B, Q, d]
    targets_ptr,  # [B, Q, c]
    chosen_ptr,  # [S, q] positions of every step's points; not read where a step has all
    scalars_ptr,  # [S, 3] what depends on the step, see descend
    num_steps,  # S, of this launch
    num_points,  # Q
    num_chosen,  # q
    coords_stride,  # from one field's coordinates to the next one's: Q d, or 0
    delta_scale,  # see chain_gradients
    scales,  # see passes
    constants,  # see descend
    FAMILY: tl.constexpr,
    LOSS: tl.constexpr,
    OPTIMIZER: tl.constexpr,
    PRECISION: tl.constexpr,
    IS_SAMPLED: tl.constexpr,
    NUM_MAPS: tl.constexpr,
    NUM_HIDDEN: tl.constexpr,
    FITTED_ROWS: tl.constexpr,  # of a map
    FREQUENCIES: tl.constexpr,
    IN_DIM: tl.constexpr,  # d
    OUT_DIM: tl.constexpr,  # c
    T: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    H: tl.constexpr,
    C: tl.constexpr,
    ROW_SIZE: tl.constexpr,  # R
):
    """Run ``num_steps`` steps of every field that is listed."""
    HIDDEN_START: tl.constexpr = NUM_MAPS * (IN_DIM + 1) * M
    HEAD_START: tl.constexpr = HIDDEN_START + NUM_HIDDEN * (H + 1) * H

    field = tl.load(fields_ptr + tl.program_id(0)).to(tl.int64)
    coords_ptr += field * coords_stride
    targets_ptr += field * num_points * OUT_DIM
    weights_ptr += field * ROW_SIZE
    state = (weights_ptr, first_ptr + field * ROW_SIZE, second_ptr + field * ROW_SIZE)
    places = (weights_ptr, weights_ptr + HIDDEN_START, weights_ptr + HEAD_START)

    # Addresses hoisted out of the loops would fill the registers that a tile needs.
    for step in tl.range(num_steps, disable_licm=True):
        gradients = _zero_gradients(NUM_MAPS, NUM_HIDDEN, D, M, H, C)
        for tile in tl.range(tl.cdiv(num_chosen, T), disable_licm=True):
            place = tile * T + tl.arange(0, T)[:, None]
            present = place < num_chosen
            if IS_SAMPLED:
                place = tl.load(chosen_ptr + step * num_chosen + place, mask=present, other=0)
            points, basis = _load_coords(coords_ptr, place, present, IN_DIM, D)
            channels = tl.arange(0, C)[None, :]
            valid = present & (channels < OUT_DIM)
            targets = tl.load(targets_ptr + place * OUT_DIM + channels, mask=valid, other=0.0)
            if FAMILY == "fouriernet":
                gradients = filter_gradients(
                    places, points, basis, targets, valid, gradients, scales, delta_scale,
                    LOSS, PRECISION, H, C,
                )  # fmt: skip
            else:
                gradients = chain_gradients(
                    places, points, basis, targets, valid, gradients, scales, delta_scale,
                    FAMILY, LOSS, PRECISION, FREQUENCIES, M, H, C,
                )  # fmt: skip

        scalars = (
            tl.load(scalars_ptr + 3 * step),
            tl.load(scalars_ptr + 3 * step + 1),
            tl.load(scalars_ptr + 3 * step + 2),
        )
        maps, kernels, biases, head = gradients
        rows = tl.arange(0, D)[:, None]
        is_bias = rows == IN_DIM
        all_rows = tl.full((1, 1), True, tl.int1)
        tl.debug_barrier()  # no warp still reads the weights
        for i in tl.static_range(NUM_MAPS):
            gradient = maps[i] * tl.where(is_bias, scales[1], scales[0])
            start = i * (IN_DIM + 1) * M
            descend(state, start, gradient, rows < FITTED_ROWS, scalars, constants, OPTIMIZER)
        # A bias is row d of its block of D rows, which therefore starts d rows before it.
        for i in tl.static_range(NUM_HIDDEN):
            start = HIDDEN_START + i * (H + 1) * H
            kernel, bias = kernels[i] * scales[2], biases[i] * scales[3]
            descend(state, start, kernel, all_rows, scalars, constants, OPTIMIZER)
            start += (H - IN_DIM) * H
            descend(state, start, bias, is_bias, scalars, constants, OPTIMIZER)
        descend(state, HEAD_START, head[0], all_rows, scalars, constants, OPTIMIZER)
        start = HEAD_START + C * (H - IN_DIM)
        descend(state, start, head[1], is_bias, scalars, constants, OPTIMIZER)
        tl.debug_barrier()  # every warp sees the new weights


@triton.jit
def _zero_gradients(
    NUM_MAPS: tl.constexpr,
    NUM_HIDDEN: tl.constexpr,
    D: tl.constexpr,
    M: tl.constexpr,
    H: tl.constexpr,
    C: tl.constexpr,
):
    """Return gradients before the first tile, see passes."""
    maps, kernels, biases = (), (), ()
    for _ in tl.static_range(NUM_MAPS):
        maps = maps + (tl.zeros((D, M), tl.float32),)
    for _ in tl.static_range(NUM_HIDDEN):
        kernels = kernels + (tl.zeros((H, H), tl.float32),)
        biases = biases + (tl.zeros((D, H), tl.float32),)
    return maps, kernels, biases, (tl.zeros((C, H), tl.float32), tl.zeros((D, C), tl.float32))


@triton.jit
def _load_coords(coords_ptr, place, present, IN_DIM: tl.constexpr, D: tl.constexpr):
    """Return the coordinates of a tile, as columns ``[T, 1]`` and beside ones ``[T, D]``."""
    points = ()
    for k in tl.static_range(IN_DIM):
        column = tl.load(coords_ptr + place * IN_DIM + k, mask=present, other=0.0)
        points = points + (column,)
    columns = tl.arange(0, D)[None, :]
    is_coordinate = present & (columns < IN_DIM)
    basis = tl.load(coords_ptr + place * IN_DIM + columns, mask=is_coordinate, other=0.0)
    return points, tl.where(columns == IN_DIM, 1.0, basis)
