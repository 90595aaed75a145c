from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from classifiers.models import gnn_messages
from classifiers.models.gnn_messages import blocks_of, send_messages

DIM, FIELDS, SOURCES, TARGETS = 3, 4, 5, 2
EVERY_DEPTH = pytest.mark.parametrize("widths", [(6,), (6, 7), (8, 5, 6)], ids=str)


def draw(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64).requires_grad_()


def draw_parts(widths: tuple[int, ...], edge_dim: int) -> list[Tensor]:
    """Edges, parts of sources and targets, first kernel, hidden maps, last map."""
    torch.manual_seed(0)
    maps = [
        part
        for rows, columns in zip((*widths[1:], DIM), widths, strict=True)
        for part in (draw(rows, columns), draw(rows))
    ]
    ends = (draw(FIELDS, size, widths[0]) for size in (SOURCES, TARGETS))
    return [draw(FIELDS, SOURCES, TARGETS, edge_dim), *ends, draw(widths[0], DIM), *maps]


def plain(
    parts: list[Tensor], encoder: tuple[Tensor, Tensor] | None, residual: bool
) -> tuple[Tensor, Tensor]:
    edges, from_part, to_part, kernel, *maps = parts
    if encoder is not None:
        edges = F.linear(edges, *encoder)
    hidden = F.silu(F.linear(edges, kernel) + from_part[:, :, None] + to_part[:, None])
    for weight, bias in zip(maps[:-2:2], maps[1:-2:2], strict=True):
        hidden = F.silu(F.linear(hidden, weight, bias))
    messages = F.linear(hidden, *maps[-2:])
    return hidden.sum(1), edges + messages if residual else messages


def gradients(results: tuple[Tensor, ...], parts: list[Tensor]) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    loss = sum((result * torch.randn_like(result)).sum() for result in results)
    assert isinstance(loss, Tensor)
    return torch.autograd.grad(loss, parts)


@EVERY_DEPTH
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("is_encoded", [False, True])
@pytest.mark.parametrize("numbers", [1, 40, 200, 10_000])  # an edge, some sources, fields, all
def test_messages_and_gradients_are_those_of_plain_layers(
    widths: tuple[int, ...],
    residual: bool,
    is_encoded: bool,
    numbers: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gnn_messages, "_CACHED_NUMBERS", numbers)
    parts = draw_parts(widths, 1 if is_encoded else DIM)
    encoder = (draw(DIM, 1), draw(DIM)) if is_encoded else None
    inner, last = parts[4:-2], parts[-2:]

    sums, new = send_messages(*parts[:4], inner, last, encoder=encoder, residual=residual)

    assert new is not None
    expected = plain(parts, encoder, residual)
    torch.testing.assert_close((sums, new), expected, rtol=1e-11, atol=1e-11)
    everything = [*parts, *(encoder or ())]
    torch.testing.assert_close(
        gradients((sums, new), everything), gradients(expected, everything), rtol=1e-10, atol=1e-10
    )


@EVERY_DEPTH
def test_without_a_last_map_there_are_sums_alone(widths: tuple[int, ...]) -> None:
    parts = draw_parts(widths, DIM)

    sums, new = send_messages(*parts[:4], parts[4:-2], residual=True)

    assert new is None
    expected, _ = plain(parts, None, residual=True)
    torch.testing.assert_close(sums, expected, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        gradients((sums,), parts[:-2]), gradients((expected,), parts[:-2]), rtol=1e-10, atol=1e-10
    )


def test_edges_that_are_data_need_no_gradient() -> None:
    parts = draw_parts((6, 7), DIM)
    parts[0] = parts[0].detach()

    sums, new = send_messages(*parts[:4], parts[4:-2], parts[-2:], residual=True)

    assert new is not None
    expected = plain(parts, None, residual=True)
    torch.testing.assert_close(
        gradients((sums, new), parts[1:]), gradients(expected, parts[1:]), rtol=1e-10, atol=1e-10
    )


def test_rounded_products_are_close_and_have_gradients() -> None:
    parts = [part.detach().float().requires_grad_() for part in draw_parts((16, 16), DIM)]

    with torch.autocast("cpu", torch.bfloat16):
        sums, new = send_messages(*parts[:4], parts[4:-2], parts[-2:], residual=True)

    assert new is not None
    assert new.dtype == torch.bfloat16
    expected = plain(parts, None, residual=True)
    pairs = zip(
        gradients((sums.float(), new.float()), parts), gradients(expected, parts), strict=True
    )
    for of_rounded, of_plain in pairs:
        assert of_rounded.dtype == torch.float32
        # eight bits of mantissa
        assert float((of_rounded - of_plain).norm() / of_plain.norm()) < 0.03


@pytest.mark.parametrize(("numbers", "count"), [(1, 20), (24, 12), (60, 4), (120, 2), (240, 1)])
def test_blocks_are_fields_or_sources_of_one_field_and_cover_every_edge_once(
    numbers: int, count: int, monkeypatch: pytest.MonkeyPatch, one_thread: None
) -> None:
    del one_thread  # more threads, larger blocks
    monkeypatch.setattr(gnn_messages, "_CACHED_NUMBERS", numbers)
    times = torch.zeros(FIELDS, SOURCES, TARGETS, DIM)

    blocks = blocks_of(times, width=6)

    for block in blocks:
        times[block] += 1
    assert bool((times == 1).all())
    assert len(blocks) == count
