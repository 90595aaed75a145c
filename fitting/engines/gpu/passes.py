# mypy: ignore-errors
# Kernels are written in the language of Triton, which types of Python do not describe.
# ruff: noqa: RUF005 - it has no starred expressions
"""Forward and backward pass of one tile of points, one function per kind of network.

Shapes: T points in a tile, D > d, H hidden units, C channels, all powers of two; M = H, or H / 2
where a sine and a cosine share a frequency. What pads them is zero and stays zero.

``places`` are pointers to the maps from the coordinates, the hidden maps and the head of a field;
``scales`` the factors of kernel and bias of a map, then of a hidden map.

``gradients`` is a tuple of tuples that every tile adds to: one ``[D, M]`` per map, one ``[H, H]``
and one ``[D, H]`` per hidden map, then ``[C, H]`` and ``[D, C]`` of the head. Those with D rows are
products with ``basis`` ``[T, D]``, the coordinates and a one: row d is the gradient of a bias, the
rows before it that of a map's kernel. Plain sums over the points would cost more, as each has to
pass between all warps.
"""

import triton
import triton.language as tl

from fitting.engines.gpu.product import product
from fitting.engines.gpu.sine import sincos_half_turns

_PI = tl.constexpr(3.141592653589793)


@triton.jit
def chain_gradients(
    places,
    points,
    basis,
    targets,
    valid,
    gradients,
    scales,
    delta_scale,
    FAMILY: tl.constexpr,
    LOSS: tl.constexpr,
    PRECISION: tl.constexpr,
    FREQUENCIES: tl.constexpr,
    M: tl.constexpr,
    H: tl.constexpr,
    C: tl.constexpr,
):
    """Add a tile's gradients of one map from the coordinates and a chain of hidden maps.

    Args:
        places: See above.
        points: Coordinates, a tuple of d columns ``[T, 1]``.
        basis: See above.
        targets: ``[T, C]``.
        valid: Of that shape, false for padding.
        gradients: See above.
        scales: See above.
        delta_scale: Factor of the loss's derivative.
        FAMILY: Kind of field: siren, rffnet or mlp.
        LOSS: Kind of loss.
        PRECISION: Of products.
        FREQUENCIES: Of an encoding, without padding.
        M: Width of the map.
        H: Width of the hidden maps.
        C: Channels.
    """
    maps_ptr, hidden_ptr, head_ptr = places
    maps, kernels, biases, head = gradients

    # A hidden value with what its derivative is made of: the cosine, or a ReLU's value itself.
    if FAMILY == "mlp":
        hidden = _relu(_map_coords(maps_ptr, points, scales, M))
        slope = hidden
    else:
        hidden, slope = sincos_half_turns(_map_coords(maps_ptr, points, scales, M))
    if FAMILY == "rffnet":
        # The cosine of the padding is 1.
        slope = tl.where(tl.arange(0, M)[None, :] < FREQUENCIES, slope, 0.0)
        hidden, slope = _interleave(hidden, slope, H), _interleave(slope, -hidden, H)
    values, slopes = (hidden,), (slope,)
    for i in tl.static_range(len(kernels)):
        z = _hidden_map(values[i], hidden_ptr, i, scales, H, PRECISION)
        if FAMILY == "siren":
            hidden, slope = sincos_half_turns(z)
        else:
            hidden = _relu(z)
            slope = hidden
        values, slopes = values + (hidden,), slopes + (slope,)

    back, head = _head_gradients(
        hidden, basis, targets, valid, head_ptr, head, delta_scale, LOSS, PRECISION, H, C
    )
    new_kernels, new_biases = (), ()
    for i in tl.static_range(len(kernels) - 1, -1, -1):
        back = _through_activation(back, slopes[i + 1], FAMILY == "siren")
        kernel, bias = _hidden_gradients(values[i], back, basis, kernels[i], biases[i], PRECISION)
        new_kernels, new_biases = (kernel,) + new_kernels, (bias,) + new_biases
        back = _hidden_map_back(back, hidden_ptr, i, scales, H, PRECISION)
    back = _through_activation(back, slopes[0], FAMILY != "mlp")
    if FAMILY == "rffnet":
        back = _add_pairs(back, M)
    new_map = product(tl.trans(basis), back, maps[0], PRECISION)
    return (new_map,), new_kernels, new_biases, head


@triton.jit
def filter_gradients(
    places,
    points,
    basis,
    targets,
    valid,
    gradients,
    scales,
    delta_scale,
    LOSS: tl.constexpr,
    PRECISION: tl.constexpr,
    H: tl.constexpr,
    C: tl.constexpr,
):
    """Add a tile's gradients of a multiplicative filter network.

    There is one map, a filter, more than there are hidden maps. Arguments as above.
    """
    maps_ptr, hidden_ptr, head_ptr = places
    maps, kernels, biases, head = gradients
    MAP_SIZE: tl.constexpr = (len(points) + 1) * H

    hidden, slope = sincos_half_turns(_map_coords(maps_ptr, points, scales, H))
    values, responses, slopes, linears = (hidden,), (hidden,), (slope,), ()
    for i in tl.static_range(len(kernels)):
        linear = _hidden_map(values[i], hidden_ptr, i, scales, H, PRECISION)
        angle = _map_coords(maps_ptr + (i + 1) * MAP_SIZE, points, scales, H)
        response, slope = sincos_half_turns(angle)
        hidden = response * linear
        values, linears = values + (hidden,), linears + (linear,)
        responses, slopes = responses + (response,), slopes + (slope,)

    back, head = _head_gradients(
        hidden, basis, targets, valid, head_ptr, head, delta_scale, LOSS, PRECISION, H, C
    )
    new_maps, new_kernels, new_biases = (), (), ()
    for i in tl.static_range(len(kernels) - 1, -1, -1):
        turn = _through_activation(back * linears[i], slopes[i + 1], True)
        new_map = product(tl.trans(basis), turn, maps[i + 1], PRECISION)
        back = back * responses[i + 1]
        kernel, bias = _hidden_gradients(values[i], back, basis, kernels[i], biases[i], PRECISION)
        new_maps = (new_map,) + new_maps
        new_kernels, new_biases = (kernel,) + new_kernels, (bias,) + new_biases
        back = _hidden_map_back(back, hidden_ptr, i, scales, H, PRECISION)
    turn = _through_activation(back, slopes[0], True)
    new_map = product(tl.trans(basis), turn, maps[0], PRECISION)
    return (new_map,) + new_maps, new_kernels, new_biases, head


@triton.jit
def _map_coords(map_ptr, points, scales, M: tl.constexpr):
    """Return ``x A + c`` ``[T, M]``, scaled: sums of d products in full float32.

    So short products would not fill a tensor core, and the angles need every digit.
    """
    columns = tl.arange(0, M)[None, :]
    result = tl.load(map_ptr + len(points) * M + columns) * scales[1]
    for k in tl.static_range(len(points)):
        result = result + points[k] * (tl.load(map_ptr + k * M + columns) * scales[0])
    return result


@triton.jit
def _hidden_map(
    value, hidden_ptr, i: tl.constexpr, scales, H: tl.constexpr, PRECISION: tl.constexpr
):
    """Return ``a W + b`` of a hidden map, scaled."""
    rows, columns = tl.arange(0, H)[:, None], tl.arange(0, H)[None, :]
    kernel_ptr = hidden_ptr + i * (H + 1) * H
    kernel = tl.load(kernel_ptr + rows * H + columns) * scales[2]
    bias = tl.load(kernel_ptr + H * H + columns) * scales[3]
    return product(value, kernel, None, PRECISION) + bias


@triton.jit
def _hidden_map_back(
    back, hidden_ptr, i: tl.constexpr, scales, H: tl.constexpr, PRECISION: tl.constexpr
):
    """Return ``G W^T`` of a hidden map.

    Loading the transpose afresh keeps no kernel in registers from the forward to the backward pass.
    """
    rows, columns = tl.arange(0, H)[:, None], tl.arange(0, H)[None, :]
    kernel_ptr = hidden_ptr + i * (H + 1) * H
    transposed = tl.load(kernel_ptr + columns * H + rows) * scales[2]
    return product(back, transposed, None, PRECISION)


@triton.jit
def _head_gradients(
    hidden,
    basis,
    targets,
    valid,
    head_ptr,
    head,
    delta_scale,
    LOSS: tl.constexpr,
    PRECISION: tl.constexpr,
    H: tl.constexpr,
    C: tl.constexpr,
):
    """Return the gradient by the last hidden values ``[T, H]`` and the head's, with this tile's."""
    channels = tl.arange(0, C)
    kernel = tl.load(head_ptr + channels[:, None] * H + tl.arange(0, H)[None, :])
    bias = tl.load(head_ptr + C * H + channels[None, :])
    values = product(hidden, tl.trans(kernel), None, PRECISION) + bias
    delta = values - targets if LOSS == "mse" else tl.sigmoid(values) - targets
    delta = tl.where(valid, delta * delta_scale, 0.0)
    head_kernel = product(tl.trans(delta), hidden, head[0], PRECISION)
    head_bias = product(tl.trans(basis), delta, head[1], PRECISION)
    return product(delta, kernel, None, PRECISION), (head_kernel, head_bias)


@triton.jit
def _hidden_gradients(value, back, basis, kernel, bias, PRECISION: tl.constexpr):
    """Add this tile's gradients of a hidden map, given that by its output."""
    kernel = product(tl.trans(value), back, kernel, PRECISION)
    return kernel, product(tl.trans(basis), back, bias, PRECISION)


@triton.jit
def _through_activation(back, slope, IS_SINE: tl.constexpr):
    """Return the gradient by what went into a sine of half-turns, or into a ReLU."""
    return back * (slope * _PI) if IS_SINE else tl.where(slope > 0, back, 0.0)


@triton.jit
def _relu(z):
    """Return ``max(z, 0)``; what is not a number stays so."""
    return tl.maximum(z, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _interleave(even, odd, H: tl.constexpr):
    """Join two ``[T, H / 2]`` to ``[T, H]``, column by column."""
    return tl.reshape(tl.join(even, odd), (even.shape[0], H))


@triton.jit
def _add_pairs(interleaved, M: tl.constexpr):
    """Add columns 2j and 2j + 1 of ``[T, 2 M]``."""
    even, odd = tl.split(tl.reshape(interleaved, (interleaved.shape[0], M, 2)))
    return even + odd
