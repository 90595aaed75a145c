"""Read and write the folders of fit-a-nef: fields in HDF5 files beside ``nef.json``.

The layout of that library (Papa et al. 2024; last commit 2024-01-22) is::

    nef.json            {"name": "SIREN", "params": {"output_dim": 1, "hidden_dim": 32, ...}}
    cfg.json            how the fields were fitted; may be missing
    nefs_<a>-<b>.hdf5   fields a to b - 1: params float32 [b - a, P], param_config (the JSON list of
                        [name, shape] in storage order), labels int [b - a] (may be missing)

Rows go through unchanged, bit by bit. What the format does not say (splits, final loss, status,
start) is unknown after an import; ``cfg.json`` of an export carries how the signals were scaled,
under the key ``nefbench``, and an import reads it from there.
"""

from nefbench.weights.hdf5.reading import import_fit_a_nef
from nefbench.weights.hdf5.writing import export_fit_a_nef

__all__ = ["export_fit_a_nef", "import_fit_a_nef"]
