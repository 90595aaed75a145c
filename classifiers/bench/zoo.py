"""The contenders: every model at its published size, and the formulations it is compared with."""

from __future__ import annotations

from classifiers.bench.contenders import Contender
from classifiers.models import (
    DWS,
    GNN,
    MLP,
    NFN,
    NGGNN,
    NGT,
    Inr2Vec,
    PhaseGMN,
    PhaseProbes,
    ProbeGen,
    ScaleGMN,
)

HEADLINE = ("gnn sparse", "gnn", "ng-gnn sparse", "ng-gnn", "ng-t all pairs", "ng-t")
"""Models that have a baseline, with it."""


def contenders() -> tuple[Contender, ...]:
    """List the contenders, every baseline before who is compared with it."""
    gnn, ng_gnn, ng_t = GNN(reverse_edges=True), NGGNN(), NGT()
    return (
        Contender("mlp", MLP()),
        Contender("gnn sparse", gnn, is_sparse=True),
        Contender("gnn", gnn, "gnn sparse"),
        Contender("ng-gnn sparse", ng_gnn, is_sparse=True),
        Contender("ng-gnn", ng_gnn, "ng-gnn sparse"),
        Contender("ng-t all pairs", ng_t, is_sparse=True),
        Contender("ng-t", ng_t, "ng-t all pairs"),
        Contender("ng-t present", NGT(edges="present"), "ng-t all pairs", is_same=False),
        Contender("dws", DWS()),
        Contender("dws-ds", DWS(set_layer="ds")),
        Contender("nfn", NFN()),
        Contender("scale-gmn", ScaleGMN()),
        Contender("scale-gmn 64", ScaleGMN(hidden_dim=64)),
        Contender("inr2vec", Inr2Vec()),
        Contender("probegen", ProbeGen()),
        Contender("phase-gmn", PhaseGMN()),
        Contender("phase-probes", PhaseProbes()),
    )
