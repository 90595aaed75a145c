"""Accuracy bars with everything they have to be compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nefbench.plots.theme import COLUMN_WIDTH, INIT_COLOURS, new_figure, themed


@dataclass(frozen=True)
class AccuracyBar:
    """One bar.

    Attributes:
        name: Below the bar; its first word picks the colour where one is set.
        mean: Test accuracy, 0 to 1.
        sd: Standard deviation over seeds.
    """

    name: str
    mean: float
    sd: float


@themed
def accuracy_figure(
    bars: Sequence[AccuracyBar], *, chance: float, num_seeds: int, inputs: str
) -> Figure:
    """Draw one panel of accuracy bars; see ``plot_accuracies``."""
    figure = new_figure(COLUMN_WIDTH, 2.6)
    plot_accuracies(figure.subplots(), bars, chance=chance, num_seeds=num_seeds, inputs=inputs)
    return figure


def plot_accuracies(
    ax: Axes, bars: Sequence[AccuracyBar], *, chance: float, num_seeds: int, inputs: str
) -> None:
    """Draw test accuracies with error bars of one standard deviation, and the chance level.

    Args:
        ax: Where to draw.
        bars: From left to right.
        chance: One over the number of classes.
        num_seeds: Trainings behind each bar.
        inputs: What was classified, for the title.
    """
    positions = range(len(bars))
    colours = [INIT_COLOURS.get(bar.name.split()[0], "#999999") for bar in bars]
    drawn = ax.bar(
        positions,
        [bar.mean for bar in bars],
        yerr=[bar.sd for bar in bars],
        color=colours,
        width=0.6,
        capsize=3,
        error_kw={"lw": 1},
        label=f"mean ± 1 s.d. over {num_seeds} seeds",
    )
    ax.bar_label(drawn, [f"{bar.mean:.3f}" for bar in bars], padding=2)
    ax.axhline(chance, color="black", lw=0.8, ls="--", label=f"chance ({chance:.2f})")
    ax.set_xticks(list(positions), [bar.name for bar in bars])
    ax.set_ylim(0, 1.15)
    ax.set_yticks([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    ax.set_ylabel("test accuracy")
    ax.set_title(inputs)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, fontsize=7)
