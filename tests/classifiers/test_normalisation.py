from __future__ import annotations

import numpy as np
import torch

from classifiers.normalisation import TensorNormalisation
from nefbench.fields import Siren
from nefbench.spec import ParamSpec, TensorSpec

SPEC = ParamSpec((TensorSpec("bias", (2,), (None,)), TensorSpec("kernel", (1, 3), (None, None))))


def rows(seed: int, count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_every_tensor_gets_its_own_mean_and_population_standard_deviation() -> None:
    normalisation = TensorNormalisation(SPEC)

    normalisation.measure(torch.tensor([[1.0, 3.0, 0.0, 0.0, 6.0], [5.0, 7.0, 0.0, 0.0, 6.0]]))

    # bias: 1, 3, 5, 7 has mean 4 and variance (9 + 1 + 1 + 9) / 4 = 5
    # kernel: 0, 0, 6, 0, 0, 6 has mean 2 and variance (4 * 4 + 2 * 16) / 6 = 8
    torch.testing.assert_close(normalisation.mean, torch.tensor([4.0, 4.0, 2.0, 2.0, 2.0]))
    torch.testing.assert_close(
        normalisation.std, torch.tensor([5**0.5, 5**0.5, 8**0.5, 8**0.5, 8**0.5])
    )


def test_rows_are_normalised_as_in_plain_numpy() -> None:
    train, other = rows(0, 50, 5) * 3 + 2, rows(1, 7, 5)
    normalisation = TensorNormalisation(SPEC)

    normalisation.measure(train)
    result = normalisation(other)

    exact = train.double().numpy()
    expected = other.double().numpy()
    for place in (slice(0, 2), slice(2, 5)):
        mean = exact[:, place].mean()
        std = np.sqrt(((exact[:, place] - mean) ** 2).mean())
        expected[:, place] = (expected[:, place] - mean) / (std + 1e-6)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-6)  # float32


def test_a_tensor_that_never_varies_is_centred_and_stays_finite() -> None:
    train = torch.tensor([[0.5, 0.5, 1.0, 2.0, 3.0], [0.5, 0.5, 3.0, 2.0, 1.0]])
    normalisation = TensorNormalisation(SPEC)

    normalisation.measure(train)
    result = normalisation(train)

    assert torch.equal(normalisation.std[:2], torch.zeros(2))
    assert torch.equal(result[:, :2], torch.zeros(2, 2))
    assert result.isfinite().all()
    # elsewhere a difference of 1 counts 1 / 1e-6
    torch.testing.assert_close(normalisation(train + 1)[:, :2], torch.full((2, 2), 1e6))


def test_a_small_spread_around_a_large_mean_is_measured_exactly() -> None:
    # In float32, E[x^2] - E[x]^2 of these numbers is off by more than their variance of 1/16.
    train = torch.tensor([[10_000.25], [9_999.75]]).repeat(2000, 1)
    normalisation = TensorNormalisation(ParamSpec((TensorSpec("bias", (1,), (None,)),)))

    normalisation.measure(train)

    assert normalisation.mean.tolist() == [10_000.0]
    assert normalisation.std.tolist() == [0.25]


def test_normalising_commutes_with_permutations_of_neurons() -> None:
    spec = Siren(hidden_dim=4, num_layers=3).spec(2, 1)
    train = rows(0, 20, spec.num_params)
    permutations = {"h0": torch.tensor([2, 0, 3, 1]), "h1": torch.tensor([1, 0, 3, 2])}
    normalisation = TensorNormalisation(spec)
    normalisation.measure(train)

    permuted_first = normalisation(spec.permute(train, permutations))

    assert torch.equal(permuted_first, spec.permute(normalisation(train), permutations))
    assert not torch.equal(permuted_first, normalisation(train))


def test_the_statistics_travel_with_the_state_of_the_network() -> None:
    measured, fresh = TensorNormalisation(SPEC), TensorNormalisation(SPEC)
    measured.measure(rows(0, 10, 5))

    fresh.load_state_dict(measured.state_dict())

    assert torch.equal(fresh(rows(1, 3, 5)), measured(rows(1, 3, 5)))
    assert list(measured.parameters()) == []


def test_scaling_divides_by_the_root_mean_square_and_keeps_signs() -> None:
    train = rows(0, 50, 5) * 3 + 2
    normalisation = TensorNormalisation(SPEC, "scale")

    normalisation.measure(train)

    root_mean_square = train[:, :2].double().square().mean().sqrt()
    torch.testing.assert_close(normalisation.std[:2], root_mean_square.float().expand(2))
    assert torch.equal(normalisation(-train), -normalisation(train))


def test_without_normalisation_rows_stay_as_they_are_but_their_scale_is_known() -> None:
    train = rows(0, 50, 5) * 3
    normalisation = TensorNormalisation(SPEC, "none")

    normalisation.measure(train)

    assert torch.equal(normalisation(train), train)
    assert 2 < float(normalisation.std[0]) < 4
