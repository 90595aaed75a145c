"""Models that read weights: one file each, one line each in ``ModelConfig``."""

from classifiers.models.base import Model
from classifiers.models.dws import DWS
from classifiers.models.gnn import GNN
from classifiers.models.inr2vec import Inr2Vec
from classifiers.models.mlp import MLP
from classifiers.models.nfn import NFN
from classifiers.models.ng_gnn import NGGNN
from classifiers.models.ng_t import NGT
from classifiers.models.phase_gmn import PhaseGMN
from classifiers.models.phase_probes import PhaseProbes
from classifiers.models.probegen import ProbeGen
from classifiers.models.scale_gmn import ScaleGMN

ModelConfig = (
    MLP | GNN | NGGNN | NGT | DWS | NFN | ScaleGMN | PhaseGMN | PhaseProbes | Inr2Vec | ProbeGen
)
"""Every model that can be named in a configuration."""

__all__ = [
    "DWS",
    "GNN",
    "MLP",
    "NFN",
    "NGGNN",
    "NGT",
    "Inr2Vec",
    "Model",
    "ModelConfig",
    "PhaseGMN",
    "PhaseProbes",
    "ProbeGen",
    "ScaleGMN",
]
