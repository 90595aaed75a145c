"""Weights to labels: classifiers that read neural fields."""
