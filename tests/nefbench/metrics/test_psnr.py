from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from nefbench.metrics import psnr, psnr_peak


def test_psnr_equals_the_hand_computation() -> None:
    truth = torch.tensor([[[0.5], [0.5]], [[0.0], [1.0]]])
    estimate = torch.tensor([[[0.6], [0.5]], [[0.1], [0.9]]])

    # Mean squared errors 0.01 / 2 and 0.01: 10 log10(200) and 20 dB.
    expected = torch.tensor([10 * math.log10(200), 20.0])
    torch.testing.assert_close(psnr(truth, estimate), expected)


def test_both_scores_equal_scikit_image_field_by_field() -> None:
    rng = np.random.default_rng(0)
    truth, estimate = rng.uniform(0, 0.9, size=(2, 4, 30, 3))

    scores = psnr(torch.from_numpy(truth), torch.from_numpy(estimate))
    peak_scores = psnr_peak(torch.from_numpy(truth), torch.from_numpy(estimate))

    pairs = list(zip(truth, estimate, strict=True))
    expected = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in pairs]
    assert scores.tolist() == pytest.approx(expected, abs=1e-12)
    expected = [peak_signal_noise_ratio(a, b, data_range=a.max()) for a, b in pairs]
    # The 1e-8 of psnr_peak is 1e-7 of these errors.
    assert peak_scores.tolist() == pytest.approx(expected, abs=1e-6)


def test_the_error_is_averaged_over_channels_before_the_logarithm() -> None:
    truth = torch.zeros(1, 1, 2)
    estimate = torch.tensor([[[0.1, 0.001]]])

    expected = torch.tensor([-10 * math.log10((1e-2 + 1e-6) / 2)])
    torch.testing.assert_close(psnr(truth, estimate), expected)


def test_psnr_clips_the_estimate_to_the_range_of_a_display() -> None:
    truth = torch.tensor([[[0.0], [1.0], [0.5]]])
    estimate = torch.tensor([[[-7.0], [3.0], [0.5 + math.sqrt(0.03)]]])

    # Only the third value is wrong after clipping: 0.03 / 3.
    torch.testing.assert_close(psnr(truth, estimate), torch.tensor([20.0]))


def test_a_perfect_field_scores_100_db_and_nothing_scores_more() -> None:
    truth = torch.linspace(0, 1, 6).reshape(2, 3, 1)

    assert psnr(truth, truth).tolist() == [100.0, 100.0]
    assert psnr(truth, truth + 1e-6).max() <= 100.0


def test_an_estimate_that_is_not_a_number_scores_not_a_number() -> None:
    truth = torch.zeros(2, 1, 1)

    scores = psnr(truth, torch.tensor([[[math.nan]], [[0.1]]]))

    assert scores.isnan().tolist() == [True, False]


def test_psnr_peak_gives_the_published_check_value() -> None:
    mean, std = 0.13066047, 0.30810782
    truth = torch.linspace(0, 0.9, 16, dtype=torch.float64)
    standardised = (truth - mean) / std + 0.05 * torch.sin(torch.arange(16.0).double())

    score = psnr_peak(truth.reshape(1, 16, 1), (standardised * std + mean).reshape(1, 16, 1))

    assert score.item() == pytest.approx(38.412525, abs=1e-6)


def test_psnr_peak_is_relative_to_the_maximum_of_each_field() -> None:
    truth = torch.tensor([[[0.5, 0.0]], [[1.0, 0.0]]])
    estimate = truth + torch.tensor([[[0.05, 0.05]], [[0.05, 0.05]]])

    # Errors 0.05 of 0.5 and of 1: 20 dB and 26.02 dB (the 1e-8 matters from 60 dB on).
    expected = torch.tensor([20.0, -20 * math.log10(0.05)])
    torch.testing.assert_close(psnr_peak(truth, estimate), expected, rtol=0, atol=1e-4)


def test_psnr_peak_clips_nothing_and_ends_at_80_db() -> None:
    truth = torch.tensor([[[0.0], [1.0]]])

    assert psnr_peak(truth, truth).item() == pytest.approx(80.0, abs=1e-5)
    # An error of 2 in one of two values: 10 log10(2) below zero.
    below = psnr_peak(truth, torch.tensor([[[0.0], [3.0]]]))
    assert below.item() == pytest.approx(-10 * math.log10(2), abs=1e-5)


def test_psnr_peak_takes_an_image_without_light_to_have_peak_one() -> None:
    truth = torch.tensor([[[0.0], [0.0]], [[0.0], [0.0]], [[-0.5], [-0.1]], [[0.0], [0.5]]])
    estimate = truth + torch.tensor([0.0, 0.1, 0.1, 0.1])[:, None, None]

    # Errors of nothing, 0.1 of 1 twice, and 0.1 of 0.5.
    expected = torch.tensor([80.0, 20.0, 20.0, 20 * math.log10(5)])
    torch.testing.assert_close(psnr_peak(truth, estimate), expected, rtol=0, atol=1e-4)
