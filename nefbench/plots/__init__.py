"""Figures: axes and numbers in, artists out."""
