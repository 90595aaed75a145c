"""The questions of a study: each a function from what trials found to an answer with a figure."""

from studies.questions.answer import Answer, Evidence, Unanswered
from studies.questions.clusters import clusters_and_accuracy
from studies.questions.distance import distance_and_steps
from studies.questions.overfitting import overfitting_and_size
from studies.questions.quality import quality_and_accuracy
from studies.questions.ratio import ratio_and_accuracy
from studies.questions.search import (
    good_values,
    importances,
    pareto_front,
    two_settings,
)
from studies.questions.starts import shared_or_random

QUESTIONS = (
    shared_or_random,
    quality_and_accuracy,
    ratio_and_accuracy,
    clusters_and_accuracy,
    distance_and_steps,
    overfitting_and_size,
    pareto_front,
    importances,
    good_values,
    two_settings,
)
"""In the order of the report."""

__all__ = ["QUESTIONS", "Answer", "Evidence", "Unanswered"]
