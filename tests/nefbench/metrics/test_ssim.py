from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from nefbench.metrics import ssim


def image_pair(height: int, width: int, channels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth image and a noisy copy, both inside [0, 1]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    phases = rng.uniform(0, 6, channels)
    waves = np.sin(0.4 * rows[..., None] + 0.7 * columns[..., None] + phases)
    truth = 0.5 + 0.4 * waves
    noise = rng.normal(0, 0.1, truth.shape)
    return truth, np.clip(truth + noise, 0, 1)


def as_field(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).reshape(1, -1, image.shape[-1])


def plain_ssim(truth: np.ndarray, estimate: np.ndarray, window: int) -> float:
    """The definition, window by window and channel by channel."""
    offsets = np.arange(window) - window // 2
    line = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    height, width, channels = truth.shape
    values = []
    for channel in range(channels):
        for row in range(height - window + 1):
            for column in range(width - window + 1):
                x = truth[row : row + window, column : column + window, channel]
                y = estimate[row : row + window, column : column + window, channel]
                mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
                var_x = (weights * (x - mean_x) ** 2).sum()
                var_y = (weights * (y - mean_y) ** 2).sum()
                cov = (weights * (x - mean_x) * (y - mean_y)).sum()
                values.append(
                    (2 * mean_x * mean_y + 1e-4)
                    * (2 * cov + 9e-4)
                    / ((mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4))
                )
    return float(np.mean(values))


@pytest.mark.parametrize(
    ("height", "width", "channels"),
    [(28, 28, 1), (32, 32, 3), (16, 25, 1), (25, 16, 3), (11, 11, 1)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ssim_equals_scikit_image_where_the_window_fits(
    height: int, width: int, channels: int, dtype: torch.dtype
) -> None:
    truth, estimate = image_pair(height, width, channels, seed=0)
    _, full = structural_similarity(
        truth,
        estimate,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=-1,
        full=True,
    )
    expected = full[5 : height - 5, 5 : width - 5].mean()

    score = ssim(as_field(truth).to(dtype), as_field(estimate).to(dtype), (height, width))

    assert 0.1 < expected < 0.99
    assert score.item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("base", [0.0, 0.95, 1.0])
def test_flat_regions_lose_nothing_to_rounding(base: float) -> None:
    # Variances of 1e-6 beside squares of 1, given in float32.
    noise = np.random.default_rng(0).normal(0, 1e-3, (28, 20, 1))
    truth = np.full((28, 20, 1), base, dtype=np.float32)
    estimate = np.clip(truth + noise, 0, 1).astype(np.float32)

    score = ssim(as_field(truth), as_field(estimate), (28, 20))

    expected = plain_ssim(truth.astype(np.float64), estimate.astype(np.float64), 11)
    assert score.item() == pytest.approx(expected, abs=1e-6)
    assert score.dtype == torch.float32


@pytest.mark.parametrize(
    ("height", "width", "window"),
    [
        (8, 8, 7),
        (7, 9, 7),
        (10, 30, 9),
        (30, 10, 9),
        (12, 12, 11),
        (3, 4, 3),
        (2, 6, 1),
        (1, 5, 1),
        (1, 1, 1),
    ],
)
def test_small_images_use_the_largest_odd_window_that_fits(
    height: int, width: int, window: int
) -> None:
    truth, estimate = image_pair(height, width, 2, seed=1)

    score = ssim(as_field(truth), as_field(estimate), (height, width))

    assert score.item() == pytest.approx(plain_ssim(truth, estimate, window), abs=1e-10)


def test_a_batch_equals_one_image_after_another() -> None:
    pairs = [image_pair(16, 12, 3, seed) for seed in range(4)]
    truth = torch.cat([as_field(one) for one, _ in pairs])
    estimate = torch.cat([as_field(other) for _, other in pairs])

    scores = ssim(truth, estimate, (16, 12))

    single = [ssim(truth[i : i + 1], estimate[i : i + 1], (16, 12)).item() for i in range(4)]
    assert scores.tolist() == pytest.approx(single, abs=1e-12)
    assert len({round(score, 6) for score in single}) == 4


def test_equal_images_score_one_and_inverted_ones_less_than_zero() -> None:
    truth, _ = image_pair(16, 16, 1, seed=0)

    assert ssim(as_field(truth), as_field(truth), (16, 16)).item() == pytest.approx(1, abs=1e-12)
    assert ssim(as_field(truth), as_field(1 - truth), (16, 16)).item() < 0


def test_the_estimate_is_clipped_to_the_range_of_a_display() -> None:
    truth, estimate = image_pair(16, 16, 1, seed=0)
    beyond = np.where(estimate >= 1, 5.0, np.where(estimate <= 0, -5.0, estimate))
    assert (beyond > 1).any()

    clipped = ssim(as_field(truth), as_field(beyond), (16, 16))

    assert clipped.item() == ssim(as_field(truth), as_field(estimate), (16, 16)).item()


def test_sides_under_three_pixels_compare_brightness_alone() -> None:
    truth, estimate = torch.tensor([[[0.2], [0.6]]]), torch.tensor([[[0.4], [0.6]]])

    # (2 * 0.2 * 0.4 + 1e-4) / (0.2**2 + 0.4**2 + 1e-4) at one pixel, 1 at the other.
    expected = (0.1601 / 0.2001 + 1) / 2
    assert ssim(truth, estimate, (2, 1)).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("grid_shape", [(0, 4), (4, 4), (2, 2), (-2, -4)])
def test_an_empty_side_or_another_grid_is_refused(grid_shape: tuple[int, int]) -> None:
    values = torch.zeros(1, 8, 1)

    with pytest.raises(ValueError, match=r"got shape \(1, 8, 1\)"):
        ssim(values, values, grid_shape)


def test_images_of_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        ssim(torch.zeros(1, 4, 3), torch.zeros(1, 4, 1), (2, 2))
