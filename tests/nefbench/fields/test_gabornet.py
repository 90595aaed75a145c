from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from nefbench.fields import GaborNet, evaluate
from nefbench.seeding import Draws

CheckLaws = Callable[[dict[str, Tensor], dict[str, tuple[str, float]]], None]


def plain_gabornet(
    params: dict[str, np.ndarray], point: np.ndarray, num_filters: int
) -> np.ndarray:
    """The equations for one point, unit by unit, with the distance as it is defined."""
    responses = []
    for i in range(num_filters):
        gamma, mu = params[f"filters_{i}.gamma"], params[f"filters_{i}.mu"]
        kernel, bias = params[f"filters_{i}.linear.kernel"], params[f"filters_{i}.linear.bias"]
        response = np.zeros(len(gamma))
        for j in range(len(gamma)):
            distance = math.dist(point, mu[:, j])
            angle = float(np.dot(point, kernel[:, j])) + bias[j]
            response[j] = math.exp(-0.5 * gamma[j] * distance**2) * math.sin(angle)
        responses.append(response)
    hidden = responses[0]
    for i, response in enumerate(responses[1:]):
        hidden = response * (hidden @ params[f"linears_{i}.kernel"] + params[f"linears_{i}.bias"])
    return hidden @ params["output_linear.kernel"] + params["output_linear.bias"]


@pytest.mark.parametrize(("in_dim", "out_dim", "num_filters"), [(2, 3, 3), (3, 1, 4), (1, 2, 1)])
def test_gabornet_equals_a_plain_implementation(
    in_dim: int, out_dim: int, num_filters: int
) -> None:
    field = GaborNet(hidden_dim=5, num_filters=num_filters)
    spec = field.spec(in_dim, out_dim)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2, spec.num_params, generator=generator, dtype=torch.float64)
    coords = torch.rand(7, in_dim, generator=generator, dtype=torch.float64)

    values = evaluate(field, spec, rows, coords)

    for row, some in zip(rows, values, strict=True):
        params = {name: part.numpy() for name, part in spec.unflatten(row).items()}
        expected = [plain_gabornet(params, point, num_filters) for point in coords.numpy()]
        np.testing.assert_allclose(some.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_gabornet_has_its_names_in_order() -> None:
    spec = GaborNet(hidden_dim=4, num_filters=2).spec(3, 1)

    assert spec.layout == (
        ("filters_0.gamma", (4,)),
        ("filters_0.mu", (3, 4)),
        ("filters_0.linear.bias", (4,)),
        ("filters_0.linear.kernel", (3, 4)),
        ("filters_1.gamma", (4,)),
        ("filters_1.mu", (3, 4)),
        ("filters_1.linear.bias", (4,)),
        ("filters_1.linear.kernel", (3, 4)),
        ("linears_0.bias", (4,)),
        ("linears_0.kernel", (4, 4)),
        ("output_linear.bias", (1,)),
        ("output_linear.kernel", (4, 1)),
    )


def test_gabornet_counts_precision_and_centre_of_every_unit() -> None:
    # F (d h + h) + (F - 1)(h^2 + h) + (h c + c) as FourierNet, plus F (h + d h).
    fourier = 3 * (2 * 5 + 5) + 2 * (25 + 5) + (5 + 1)

    spec = GaborNet(hidden_dim=5, num_filters=3).spec(2, 1)

    assert spec.num_params == fourier + 3 * (5 + 2 * 5)
    assert spec.group_sizes == {"g0": 5, "g1": 5, "g2": 5}


# d = 2, h = 16, F = 4, alpha = 6, beta = 2, s = 8, weight_scale 3: gamma ~ Gamma(1.5) / 2, and
# Omega ~ U(+-1 / sqrt(2)) * (8 / 2) * sqrt(gamma).
FIELD = GaborNet(
    hidden_dim=16, num_filters=4, input_scale=8.0, weight_scale=3.0, alpha=6.0, beta=2.0
)


def test_gabornet_precisions_are_gamma_distributed() -> None:
    params = FIELD.init(2, 3, Draws(0, tuple(range(500))))

    for i in range(4):
        gamma = params[f"filters_{i}.gamma"].double().flatten().numpy()
        assert gamma.mean() == pytest.approx(1.5 / 2, rel=0.03)
        assert stats.kstest(gamma, stats.gamma(1.5, scale=1 / 2).cdf).pvalue > 0.01


def test_gabornet_starts_follow_the_laws_of_the_original(check_laws: CheckLaws) -> None:
    params = FIELD.init(2, 3, Draws(0, tuple(range(500))))
    laws = {}
    for i in range(4):
        gamma = params.pop(f"filters_{i}.gamma")
        kernel = params[f"filters_{i}.linear.kernel"]
        params[f"filters_{i}.linear.kernel"] = kernel / gamma[:, None, :].sqrt()
        laws[f"filters_{i}.mu"] = ("uniform", 1.0)
        laws[f"filters_{i}.linear.bias"] = ("uniform", math.pi)
        laws[f"filters_{i}.linear.kernel"] = ("uniform", 4 / math.sqrt(2))
    for i in range(3):
        laws[f"linears_{i}.bias"] = ("uniform", 1 / 4)
        laws[f"linears_{i}.kernel"] = ("uniform", math.sqrt(3 / 16))
    laws["output_linear.bias"] = ("uniform", 1 / 4)
    laws["output_linear.kernel"] = ("uniform", 1 / 4)

    check_laws(params, laws)
