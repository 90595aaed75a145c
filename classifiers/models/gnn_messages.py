"""The messages of the study's GNN: an edge MLP that is read by sums over edges, in blocks.

A hidden layer of all edges of a batch is far larger than a cache. Taken a few fields at a time,
products of matrices and what is done number by number between them run from the cache, forwards
and backwards, almost twice as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor
from torch.autograd.function import once_differentiable

_CACHED_NUMBERS = 2**18
"""Numbers of a hidden layer that stay in the cache of one core: 1 MB in float32."""

Block = tuple[slice, slice]
"""Fields, and sources."""


def send_messages(
    edges: Tensor,
    from_part: Tensor,
    to_part: Tensor,
    kernel: Tensor,
    inner: Sequence[Tensor],
    last: Sequence[Tensor] = (),
    *,
    encoder: tuple[Tensor, Tensor] | None = None,
    residual: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Run ``m_ji = last(silu(… silu(kernel e_ji + from_j + to_i)))`` for all edges from j to i.

    Args:
        edges: ``[B, n_source, n_target, h]``, or ``F`` instead of ``h`` with an encoder.
        from_part: Per source ``[B, n_source, width]``.
        to_part: Per target ``[B, n_target, width]``.
        kernel: First map of an edge ``[width, h]``.
        inner: Kernels ``[out, in]`` and biases of the hidden maps that follow, in turn.
        last: Kernel and bias of the last map; empty: no edges are wanted.
        encoder: Kernel ``[h, F]`` and bias of a linear map that makes edges of few numbers. It is
            joined with the maps that follow, so that encoded edges are never stored.
        residual: Whether messages are added to the edges, or replace them.

    Returns:
        Sums over sources of what the last map reads, ``[B, n_target, width]``, and the new edges
        ``[B, n_source, n_target, h]``.
    """
    is_added = residual and bool(last)
    shortcut = []
    if encoder is not None:
        weight, bias = encoder
        to_part = to_part + kernel @ bias
        kernel = kernel @ weight
        if is_added:
            last, shortcut = (last[0], last[1] + bias), [weight]
    parts = [edges, from_part, to_part, kernel, *inner, *last, *shortcut]
    device = edges.device.type
    if torch.is_autocast_enabled(device):  # what is saved for the gradient has one type
        parts = [part.to(torch.get_autocast_dtype(device)) for part in parts]
    sums, *new = _Messages.apply(bool(last), is_added, bool(shortcut), *parts)
    return sums, new[0] if last else None


def blocks_of(edges: Tensor, width: int) -> list[Block]:
    """Cut edges ``[B, n_source, n_target, F]`` into fields, and large fields into sources.

    Hidden layers of ``width`` numbers per edge then fit into the caches of as many cores as
    compute. A GPU and a compiler take everything at once.
    """
    num_fields, num_sources, num_targets, _ = edges.shape
    if edges.device.type != "cpu" or torch.compiler.is_compiling():
        return [(slice(None), slice(None))]
    num_rows = _CACHED_NUMBERS * torch.get_num_threads() // (width * num_targets)
    sources, fields = max(1, min(num_sources, num_rows)), max(1, num_rows // num_sources)
    return [
        (slice(field, field + fields), slice(source, source + sources))
        for field in range(0, num_fields, fields)
        for source in range(0, num_sources, sources)
    ]


class _Messages(torch.autograd.Function):
    """See ``send_messages``; hidden layers but the first are kept, before their activation.

    Arguments: whether the last map is given, whether its results are added to something, whether
    that is a linear map of the edges (given last) or the edges; the tensors.
    """

    @staticmethod
    def forward(
        ctx: Any, has_last: bool, is_added: bool, has_shortcut: bool, *parts: Tensor
    ) -> tuple[Tensor, ...]:
        edges, from_part, to_part, kernel, *maps = parts
        shortcut = maps.pop() if has_shortcut else None
        pairs = list(zip(maps[::2], maps[1::2], strict=True))
        inner = pairs[:-1] if has_last else pairs
        width = (inner[-1][0] if inner else kernel).shape[0]
        sums = edges.new_zeros(*to_part.shape[:-1], width)
        new = edges.new_empty(*edges.shape[:-1], pairs[-1][0].shape[0]) if has_last else None
        blocks = blocks_of(edges, max(weight.shape[0] for weight in (kernel, *maps)))
        kept: list[Tensor] = []
        for block in blocks:
            hidden = _first_layer(edges, from_part, to_part, kernel, block)
            for weight, bias in inner:
                hidden = F.linear(F.silu(hidden), weight, bias)
                kept.append(hidden)
            active = F.silu(hidden)
            sums[block[0]] += active.sum(dim=1)
            if new is not None:
                messages = F.linear(active, *pairs[-1])
                if shortcut is not None:
                    messages.flatten(0, 2).addmm_(edges[block].flatten(0, 2), shortcut.T)
                elif is_added:
                    messages += edges[block]
                new[block] = messages
        ctx.settings = (has_last, is_added, has_shortcut, blocks, len(inner))
        ctx.save_for_backward(*parts, *kept)
        return (sums,) if new is None else (sums, new)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_sums: Tensor, of_new: Tensor | None = None) -> tuple[Any, ...]:
        has_last, is_added, has_shortcut, blocks, num_inner = ctx.settings
        num_parts = 4 + 2 * (num_inner + has_last) + has_shortcut
        parts, kept = ctx.saved_tensors[:num_parts], ctx.saved_tensors[num_parts:]
        edges, from_part, to_part, kernel, *maps = parts
        grads = [torch.zeros_like(part) for part in parts]
        of_edges, of_from, of_to, of_kernel, *of_maps = grads
        for number, block in enumerate(blocks):
            fields, _ = block
            values = edges[block].flatten(0, 2)
            first = _first_layer(edges, from_part, to_part, kernel, block)
            layers = [first, *kept[number * num_inner : (number + 1) * num_inner]]
            upstream = of_sums[fields, None].expand_as(layers[-1])
            if of_new is not None:
                of_messages = of_new[block].flatten(0, 2)
                place = 2 * num_inner
                active = F.silu(layers[-1])
                _add_product(of_maps[place], of_maps[place + 1], of_messages, active)
                upstream = (of_messages @ maps[place]).view_as(upstream).add_(upstream)
                if has_shortcut:
                    of_maps[-1] += of_messages.T @ values
            for place in reversed(range(0, 2 * num_inner, 2)):
                of_layer = _through_silu(upstream, layers[place // 2 + 1]).flatten(0, 2)
                active = F.silu(layers[place // 2])
                _add_product(of_maps[place], of_maps[place + 1], of_layer, active)
                upstream = (of_layer @ maps[place]).view_as(active)
            of_layer = _through_silu(upstream, first)
            of_from[block] = of_layer.sum(dim=2)
            of_to[fields] += of_layer.sum(dim=1)
            of_layer = of_layer.flatten(0, 2)
            of_kernel += of_layer.T @ values
            if ctx.needs_input_grad[3]:
                of_values = of_layer @ kernel
                if of_new is not None and is_added:
                    of_values += of_messages @ maps[-1] if has_shortcut else of_messages
                of_edges[block] = of_values.view_as(edges[block])
        return None, None, None, *grads


def _first_layer(
    edges: Tensor, from_part: Tensor, to_part: Tensor, kernel: Tensor, block: Block
) -> Tensor:
    hidden = from_part[block].unsqueeze(2) + to_part[block[0]].unsqueeze(1)
    hidden.flatten(0, 2).addmm_(edges[block].flatten(0, 2), kernel.T)
    return hidden


def _through_silu(upstream: Tensor, hidden: Tensor) -> Tensor:
    result: Tensor = torch.ops.aten.silu_backward(upstream, hidden)
    return result


def _add_product(of_weight: Tensor, of_bias: Tensor, of_output: Tensor, active: Tensor) -> None:
    """Add what a block contributes to the gradient of a linear map."""
    of_weight += of_output.T @ active.flatten(0, 2)
    of_bias += of_output.sum(dim=0)
