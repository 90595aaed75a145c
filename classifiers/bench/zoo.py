"""The contenders: every model at its published size, and the formulations it is compared with."""

from __future__ import annotations

from classifiers.bench.contenders import Contender
from classifiers.models import GNN, MLP, NGGNN, NGT


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
    )
