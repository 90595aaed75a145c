"""What a question is asked of, and what an answer is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import optuna
from matplotlib.figure import Figure

from studies.results import TrialResult
from studies.store import Store

Group = tuple[str, str, str]
"""Source, field and classifier: within them results are compared."""
Cell = str | int | float | None
T = TypeVar("T")


@dataclass(frozen=True)
class Evidence:
    """What is known when questions are asked.

    Attributes:
        results: Of all finished trials.
        study: The study itself, for its trials.
        store: Where trainings lie.
        is_grid: Whether results differ in what they name and nothing else; in a search the other
            settings differ as well.
    """

    results: Sequence[TrialResult]
    study: optuna.Study
    store: Store
    is_grid: bool


@dataclass(frozen=True)
class Answer:
    """An answer.

    Attributes:
        key: Name of its files.
        question: The question.
        verdict: The answer in a sentence, with numbers.
        details: The answer for every group, a line each.
        basis: What it was computed from.
        columns: Header of the table.
        rows: The table.
        figure: The figure.
        drawn_columns: Header of the drawn numbers.
        drawn: The drawn numbers.
    """

    key: str
    question: str
    verdict: str
    details: tuple[str, ...]
    basis: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Cell, ...]]
    figure: Figure
    drawn_columns: tuple[str, ...]
    drawn: Sequence[tuple[Any, ...]]


@dataclass(frozen=True)
class Unanswered:
    """A question that this study cannot answer.

    Attributes:
        key: As of the answer.
        question: The question.
        needs: What is missing.
    """

    key: str
    question: str
    needs: str


def grouped(
    items: Iterable[T], key: Callable[[T], tuple[Any, ...]]
) -> dict[tuple[Any, ...], list[T]]:
    """Collect items by a key, in order of first appearance."""
    groups: dict[tuple[Any, ...], list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def by_group(results: Iterable[TrialResult]) -> dict[tuple[Any, ...], list[TrialResult]]:
    """Collect results by source, field and classifier."""
    return grouped(results, lambda result: (result.source, result.field, result.classifier))


def one_per_dataset(results: Sequence[TrialResult]) -> list[TrialResult]:
    """Keep the results of the first classifier: one for each dataset."""
    first: dict[str, TrialResult] = {}
    for result in results:
        first.setdefault(result.dataset, result)
    return list(first.values())


def group_name(group: Sequence[str]) -> str:
    """Name a group in a sentence."""
    source, field, classifier = group
    return f"{field} on {source} ({classifier})"


def basis_of(results: Sequence[TrialResult]) -> str:
    """Say what an answer was computed from."""
    datasets = len({result.dataset for result in results})
    seeds = sorted({result.num_seeds for result in results})
    runs = " or ".join(map(str, seeds))
    return (
        f"{datasets} neural dataset{'s' if datasets != 1 else ''}, {len(results)} trainings of "
        f"{runs} seed{'s' if seeds != [1] else ''} each"
    )
