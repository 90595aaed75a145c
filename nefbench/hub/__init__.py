"""The neural dataset as a Hugging Face repository."""

from nefbench.hub.card import write_card

__all__ = ["write_card"]
