"""How a training went and what came out: learning curves, confusion matrix, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from nefbench.plots.theme import CLASS_COLOURS, COLUMN_WIDTH, PAGE_WIDTH, new_figure, themed

_MOST_NUMBERS = 12
"""Classes up to which every cell of a confusion matrix carries its number."""
_MOST_NAMES = 40
"""Classes up to which every class is named; above, every n-th."""


@dataclass(frozen=True)
class LearningCurve:
    """One seed; one number per epoch, None where it was not finite.

    Attributes:
        seed: For the legend.
        losses: On the training rows as they were seen.
        scores: On the validation split.
        learning_rates: Of the last step.
        best_epoch: From 1.
    """

    seed: int
    losses: Sequence[float | None]
    scores: Sequence[float | None]
    learning_rates: Sequence[float]
    best_epoch: int


@dataclass(frozen=True)
class ReliabilityBar:
    """Test rows whose confidence lies between two bounds; None without rows.

    Attributes:
        low: Lower bound.
        high: Upper bound.
        confidence: Their mean confidence.
        accuracy: Share classified correctly.
        share: Of all rows.
    """

    low: float
    high: float
    confidence: float | None
    accuracy: float | None
    share: float


@themed
def learning_curves_figure(
    curves: Sequence[LearningCurve], *, loss: str, score: str, level: tuple[str, float] | None
) -> Figure:
    """Draw training loss, validation score and learning rate over epochs, a line per seed.

    Args:
        curves: One per seed.
        loss: What the loss is, for its axis.
        score: What the score is, for its axis.
        level: Name and value to compare the score with (chance), if there is one.
    """
    figure = new_figure(PAGE_WIDTH, 2.3)
    left, middle, right = figure.subplots(1, 3)
    plot_course(left, curves, [curve.losses for curve in curves])
    plot_course(middle, curves, [curve.scores for curve in curves])
    plot_course(right, curves, [curve.learning_rates for curve in curves])
    for index, curve in enumerate(curves):
        _mark(middle, index, curve.best_epoch, curve.scores[curve.best_epoch - 1])
    handles, labels = left.get_legend_handles_labels()
    if level is not None:
        name, value = level
        line = middle.axhline(value, color="black", lw=0.8, ls="--")
        handles, labels = [*handles, line], [*labels, f"{name} ({value:.2g})"]
    middle.set_title("dot: the epoch that was kept")
    left.set_ylabel(loss)
    middle.set_ylabel(score)
    right.set_ylabel("learning rate")
    right.set_ylim(0, 1.08 * max(max(curve.learning_rates) for curve in curves))
    figure.legend(handles, labels, loc="outside upper center", ncols=min(8, len(labels)))
    return figure


def plot_course(
    ax: Axes, curves: Sequence[LearningCurve], values: Sequence[Sequence[float | None]]
) -> None:
    """Draw one line per seed over epochs from 1; there are gaps where a value is None."""
    for index, (curve, line) in enumerate(zip(curves, values, strict=True)):
        heights = [float("nan") if value is None else value for value in line]
        # A single epoch is a point: a line through it would not show.
        marker = "." if len(heights) == 1 else ""
        ax.plot(
            range(1, len(heights) + 1), heights, color=_colour(index), lw=1, marker=marker,
            label=f"seed {curve.seed}",
        )  # fmt: skip
    ax.set_xlabel("epoch")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(color="#EEEEEE", lw=0.6, zorder=0)


@themed
def confusion_figure(
    shares: Sequence[Sequence[float]], class_names: Sequence[str], *, title: str
) -> Figure:
    """Draw one panel; see ``plot_confusion``."""
    side = min(PAGE_WIDTH, max(COLUMN_WIDTH, 0.32 * len(class_names) + 1.0))
    figure = new_figure(side, side)
    plot_confusion(figure.subplots(), shares, class_names)
    figure.axes[0].set_title(title)
    return figure


def plot_confusion(ax: Axes, shares: Sequence[Sequence[float]], class_names: Sequence[str]) -> None:
    """Draw which share of each class (row) was taken for which (column), white 0, blue 1.

    Args:
        ax: Where to draw.
        shares: ``[K][K]``; every row with test rows adds up to 1.
        class_names: One per class.
    """
    count = len(class_names)
    image = ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    bar.set_label("share of the class")
    every = -(-count // _MOST_NAMES)
    ticks = list(range(0, count, every))
    names = [class_names[tick] for tick in ticks]
    ax.set_xticks(ticks, names, rotation=90 if max(map(len, names)) > 2 else 0)
    ax.set_yticks(ticks, names)
    ax.set_xlabel("taken for")
    ax.set_ylabel("class")
    if count > _MOST_NUMBERS:
        return
    for row in range(count):
        for column in range(count):
            share = shares[row][column]
            if share:
                colour = "white" if share > 0.5 else "black"
                text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
                ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=7)


@themed
def calibration_figure(bars: Sequence[ReliabilityBar], *, title: str) -> Figure:
    """Draw accuracy over confidence, and below it how many rows have which confidence."""
    figure = new_figure(COLUMN_WIDTH, 3.6)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    plot_reliability(upper, bars)
    upper.set_title(title)
    upper.tick_params(labelbottom=False)
    lower.bar(
        [bar.low for bar in bars], [bar.share for bar in bars],
        [bar.high - bar.low for bar in bars], align="edge", color="#999999", edgecolor="white",
    )  # fmt: skip
    lower.set_ylabel("share of rows")
    lower.set_xlabel("confidence")
    handles, labels = upper.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=7)
    return figure


def plot_reliability(ax: Axes, bars: Sequence[ReliabilityBar]) -> None:
    """Draw a bar of accuracy per bin of confidence, a dot at its mean confidence, the diagonal."""
    known = [bar for bar in bars if bar.accuracy is not None]
    heights = [bar.accuracy or 0.0 for bar in known]
    ax.bar(
        [bar.low for bar in known], heights, [bar.high - bar.low for bar in known],
        align="edge", color="#56B4E9", edgecolor="white", label="accuracy of a bin",
    )  # fmt: skip
    confidences = [bar.confidence or 0.0 for bar in known]
    ax.scatter(confidences, heights, s=14, color="#0072B2", zorder=3, label="at mean confidence")
    ax.plot([0, 1], [0, 1], color="black", lw=0.8, ls="--", label="calibrated")
    ax.set_xlim(0, 1)
    ax.set_ylim(0, 1.02)
    ax.set_ylabel("accuracy")


def _mark(ax: Axes, index: int, epoch: int, value: float | None) -> None:
    if value is not None:
        ax.scatter([epoch], [value], s=16, color=_colour(index), zorder=3)


def _colour(index: int) -> str:
    return CLASS_COLOURS[index % len(CLASS_COLOURS)]
