"""Neural field architectures: one file each, one line each in ``FieldConfig``."""

from nefbench.fields.base import Field
from nefbench.fields.evaluate import derivative, evaluate, render
from nefbench.fields.fouriernet import FourierNet
from nefbench.fields.gabornet import GaborNet
from nefbench.fields.mlp import MLP
from nefbench.fields.rffnet import RFFNet
from nefbench.fields.shapenet import ShapeNet
from nefbench.fields.siren import Siren

FieldConfig = Siren | FourierNet | GaborNet | RFFNet | MLP | ShapeNet
"""Every architecture that can be named in a configuration."""

__all__ = [
    "MLP",
    "Field",
    "FieldConfig",
    "FourierNet",
    "GaborNet",
    "RFFNet",
    "ShapeNet",
    "Siren",
    "derivative",
    "evaluate",
    "render",
]
