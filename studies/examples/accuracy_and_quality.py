"""A search with two objectives: fields that classify well and reconstruct well.

Run ``python -P accuracy_and_quality.py``; about a minute on two cores.
"""

from pathlib import Path

from classifiers import ClassifierConfig
from fitting import FitConfig
from nefbench.fields import Siren
from nefbench.signals import DigitsConfig
from studies import Choice, ClassifierSpace, FitSpace, Integer, Real, Search, StudyConfig
from studies.report import report_study
from studies.run import run_study

FOLDER = Path("runs/accuracy-and-quality")
CONFIG = StudyConfig(
    name="accuracy-and-quality",
    sources={"digits": DigitsConfig(max_signals=600, validation_size=100, test_size=100)},
    fields={
        "siren": FitSpace(
            fit=FitConfig(field=Siren(hidden_dim=8)),
            space={
                "num_steps": Choice(values=(5, 20, 80)),
                "field.hidden_dim": Integer(low=4, high=24, log=True),
                "optimizer.learning_rate": Real(low=1e-4, high=1e-2, log=True),
            },
        )
    },
    classifiers={"mlp": ClassifierSpace(classifier=ClassifierConfig(num_epochs=5, seeds=(0,)))},
    design=Search(
        num_trials=12, objectives=("validation_accuracy", "quality"), sampler="nsga2", seed=0
    ),
)


def main() -> None:
    """Run the search and write its report."""
    run_study(CONFIG, FOLDER, store="runs/store")
    written = report_study(FOLDER, store="runs/store")
    for answer in written.answers:
        print(f"{answer.question} {answer.verdict}")  # noqa: T201


if __name__ == "__main__":
    main()
