"""An Optuna study of one's own: any objective around a fit that a trial chooses.

Run ``python -P own_objective.py``; under a minute on two cores.
"""

import optuna

from classifiers import ClassifierConfig, train_classifier
from fitting import fit_dataset
from nefbench.signals import DigitsConfig
from studies import Choice, FitSpace, Integer, Real, suggest_fit_config

SPACE = FitSpace(
    space={
        "init.kind": Choice(values=("shared", "random")),
        "field.hidden_dim": Integer(low=4, high=16, log=True),
        "field.omega_0": Real(low=3.0, high=30.0, log=True),
        "num_steps": Choice(values=(10, 30)),
    }
)
SIGNALS = DigitsConfig(max_signals=600, validation_size=100, test_size=100).open()


def objective(trial: optuna.Trial) -> float:
    """Fit, classify, and return the validation accuracy per thousand weights."""
    config = suggest_fit_config(trial, SPACE)
    dataset = fit_dataset(SIGNALS, config, f"runs/own-objective/{trial.number}")
    report = train_classifier(dataset, ClassifierConfig(num_epochs=5))
    return report.validation_accuracy / (dataset.spec.num_params / 1000)


def main() -> None:
    """Search five trials."""
    sampler = optuna.samplers.TPESampler(seed=0)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.optimize(objective, n_trials=5)
    print(f"best: {study.best_value:.3f} with {study.best_params}")  # noqa: T201


if __name__ == "__main__":
    main()
