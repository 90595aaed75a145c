"""The neural dataset: flat weight rows in Parquet parts, described by ``nefbench.json``."""

from nefbench.weights.dataset import NeuralDataset, load_all, load_neural_dataset
from nefbench.weights.manifest import ConfigEntry, Manifest, read_manifest, write_manifest
from nefbench.weights.parts import FieldRows

__all__ = [
    "ConfigEntry",
    "FieldRows",
    "Manifest",
    "NeuralDataset",
    "load_all",
    "load_neural_dataset",
    "read_manifest",
    "write_manifest",
]
