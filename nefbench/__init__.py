"""Fit neural fields to whole datasets and study their weights as data."""

__version__ = "0.1.0"
