"""A grid over classifiers on the same fields: does size decide how much they overfit?

Run ``python -P classifier_sweep.py``; about a minute on two cores. The fields are fitted once.
"""

from pathlib import Path

from classifiers import MLP, ClassifierConfig
from fitting import FitConfig
from nefbench.fields import Siren
from nefbench.signals import DigitsConfig
from studies import Choice, ClassifierSpace, FitSpace, Grid, StudyConfig
from studies.report import report_study
from studies.run import run_study

FOLDER = Path("runs/classifier-sweep")
CONFIG = StudyConfig(
    name="classifier-sweep",
    sources={"digits": DigitsConfig(max_signals=900)},
    fields={"siren": FitSpace(fit=FitConfig(field=Siren(hidden_dim=16), num_steps=50))},
    classifiers={
        f"mlp-{width}": ClassifierSpace(
            classifier=ClassifierConfig(
                model=MLP(hidden_dims=(width, width)), num_epochs=15, patience=None, seeds=(0,)
            ),
            space={"weight_decay": Choice(values=(0.0, 0.1))},
        )
        for width in (16, 64, 256)
    },
    design=Grid(),
)


def main() -> None:
    """Run the grid and write its report."""
    run_study(CONFIG, FOLDER, store="runs/store")
    written = report_study(FOLDER, store="runs/store")
    for answer in written.answers:
        print(f"{answer.question} {answer.verdict}")  # noqa: T201


if __name__ == "__main__":
    main()
