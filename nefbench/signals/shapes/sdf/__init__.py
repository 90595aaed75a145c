"""Solids with a closed-form signed distance, many at once.

Every solid stands around the origin with y upwards and holds parameters of ``n`` solids of its
kind. It knows four things:

* ``distance(points)``: ``[n, q, 3] -> [n, q]``, Euclidean, negative inside;
* ``support(direction)``: ``[n, 3] -> [n]``, the largest ``direction . x`` over the solid;
* ``area``: ``[n]``, of its surface;
* ``surface(unit)``: ``[n, q, 3] -> [n, q, 3]``, points uniform over the surface from numbers
  uniform in [0, 1).

All arithmetic is element by element, with operations that are exactly rounded, so that the same
solid and point give the same bits in any batch: no sums over an axis, no matrix products, and
angles from a table. Points are read column by column; keep columns contiguous where speed counts.

Sources: the distances of cylinder, capped cone, hexagonal prism, octahedron and link follow
I. Quilez, "Distance functions" (iquilezles.org/articles/distfunctions); the others are derived
here.
"""

from nefbench.signals.shapes.sdf.base import Solid, choose, columns
from nefbench.signals.shapes.sdf.curved import (
    Capsule,
    Cone,
    Cylinder,
    Handle,
    Link,
    RoundedBox,
    Sphere,
    Torus,
    Tube,
)
from nefbench.signals.shapes.sdf.flat import Box, HexagonalPrism, Octahedron, Pyramid

__all__ = [
    "Box",
    "Capsule",
    "Cone",
    "Cylinder",
    "Handle",
    "HexagonalPrism",
    "Link",
    "Octahedron",
    "Pyramid",
    "RoundedBox",
    "Solid",
    "Sphere",
    "Torus",
    "Tube",
    "choose",
    "columns",
]
