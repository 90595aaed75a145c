"""The training of one seed, an epoch at a time; between epochs its state can be kept."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from classifiers.augmentation import Augmenter
from classifiers.config import ClassifierConfig
from classifiers.evaluation import accuracy_of, errors_of
from classifiers.examples import Examples, LabelledRows
from classifiers.reader import PropertyScale, WeightReader, build_reader, read_rows
from classifiers.schedule import learning_rate_at
from nefbench.errors import TrainingError
from nefbench.seeding import derive_seed

_ROWS_AT_ONCE = 1024
"""About how many rows are drawn and augmented together: what fits into a cache."""


@dataclass(frozen=True, kw_only=True)
class EpochRecord:
    """What is known after one epoch.

    Attributes:
        loss: Mean over the training rows as they were seen; None if not finite.
        score: Validation accuracy, or mean R2 over properties; None if not finite.
        train_accuracy: On the training rows as they were seen, with augmentation, noise and
            dropout; None of mixed rows and of properties.
        learning_rate: Of the last step.
        seconds: Wall time, validation included.
        step_seconds: Wall time of the training steps.
        cpu_seconds: Time of all processors together.
    """

    loss: float | None
    score: float | None
    train_accuracy: float | None = None
    learning_rate: float
    seconds: float
    step_seconds: float
    cpu_seconds: float


class Training:
    """A network on its way; everything it does is a function of configuration, data and seed.

    Attributes:
        seed: Of every draw.
        records: One per finished epoch.
        best_epoch: The first epoch with the highest score, from 1; 0 before any.
    """

    def __init__(
        self,
        examples: Examples,
        splits: dict[str, LabelledRows],
        config: ClassifierConfig,
        seed: int,
    ) -> None:
        self.seed = seed
        self.records: list[EpochRecord] = []
        self.best_epoch = 0
        self._config = config
        self._train, self._validation = splits["train"], splits["validation"]
        self._num_classes = len(examples.class_names)
        device = self._train.rows.device
        with self._seeded("classifier/init"):
            network = build_reader(config.model, examples.space, examples.num_outputs).to(device)
        network.normalisation.measure(self._train.rows)
        self._network = network
        self._average = copy.deepcopy(network) if config.ema_decay is not None else None
        self.scale: PropertyScale | None = None
        self._targets = self._train.labels
        if examples.property_names:
            self.scale = PropertyScale(len(examples.property_names)).to(device)
            self.scale.measure(self._train.labels)
            self._targets = self.scale.standardised(self._train.labels)
        self._augmenter = Augmenter(config.augmentation, examples.space, seed)
        self._optimizer = torch.optim.AdamW(
            network.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            amsgrad=config.amsgrad,
            fused=True,  # one pass over the weights instead of ten
        )
        self._best_state = copy.deepcopy(network.state_dict())
        self._forward: Callable[[Tensor], Tensor] = network
        if config.compile:
            # The generator of eager dropout: compiled or not, the same units are dropped.
            compiled = torch.compile(network, dynamic=False, options={"fallback_random": True})
            self._forward = compiled
        if config.compile or config.precision != "float32":
            self._rehearse()

    @property
    def num_parameters(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self._network.parameters())

    @property
    def is_done(self) -> bool:
        """Whether all epochs are over, or too many without a better score."""
        done, patience = len(self.records), self._config.patience
        return done >= self._config.num_epochs or (
            patience is not None and self.best_epoch > 0 and done - self.best_epoch >= patience
        )

    def run_epoch(self) -> None:
        """Pass once over the training rows, then validate."""
        begin, cpu_begin = time.perf_counter(), time.process_time()
        epoch = len(self.records) + 1
        # Dropout has no generator argument: borrow the global one, seeded per epoch.
        with self._seeded("classifier/epoch", epoch):
            loss, accuracy, rate = self._train_epoch(epoch)
        step_seconds = time.perf_counter() - begin
        score = self._validation_score()
        self.records.append(
            EpochRecord(
                loss=loss if math.isfinite(loss) else None,
                score=score if math.isfinite(score) else None,
                train_accuracy=accuracy,
                learning_rate=rate,
                seconds=time.perf_counter() - begin,
                step_seconds=step_seconds,
                cpu_seconds=time.process_time() - cpu_begin,
            )
        )
        best = self.records[self.best_epoch - 1].score if self.best_epoch else None
        if not self.best_epoch or (math.isfinite(score) and (best is None or score > best)):
            self.best_epoch = epoch
            self._best_state = copy.deepcopy(self._evaluated.state_dict())

    def best_network(self) -> WeightReader:
        """Return the network of the best epoch; this training cannot go on afterwards."""
        self._network.load_state_dict(self._best_state)
        return self._network

    def state(self) -> dict[str, Any]:
        """Return tensors and plain numbers from which ``restore`` continues, bit by bit."""
        return {
            "network": self._network.state_dict(),
            "average": None if self._average is None else self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "best": self._best_state,
            "best_epoch": self.best_epoch,
        }

    def restore(self, state: dict[str, Any], records: list[EpochRecord]) -> None:
        """Go back to where ``state`` was taken."""
        self._network.load_state_dict(state["network"])
        if self._average is not None:
            self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best_state = state["best"]
        self.best_epoch = state["best_epoch"]
        self.records = list(records)

    @property
    def _evaluated(self) -> WeightReader:
        """What is validated, tested and kept."""
        return self._network if self._average is None else self._average

    @property
    def _batches_per_epoch(self) -> int:
        # A last batch of one row is left out: batch normalisation has no variance of one row.
        full, rest = divmod(len(self._train), self._config.batch_size)
        return full + (rest > 1)

    def _seeded(self, stream: str, step: int = 0) -> contextlib.AbstractContextManager[None]:
        return _seeded(derive_seed(self.seed, stream, step), self._train.rows.device)

    def _train_epoch(self, epoch: int) -> tuple[float, float | None, float]:
        """Return mean loss and accuracy of the rows as seen, and the last learning rate."""
        config, network = self._config, self._network
        network.train()
        parameters: list[Tensor] = list(network.parameters())
        averaged: list[Tensor] = [] if self._average is None else list(self._average.parameters())
        device = self._train.rows.device
        noise = config.noise_std * network.normalisation.std
        total, num_seen = torch.zeros((), device=device), 0
        num_right = torch.zeros((), dtype=torch.int64, device=device)
        has_classes = self.scale is None and config.augmentation.mixup is None
        num_steps = config.num_epochs * self._batches_per_epoch
        step = (epoch - 1) * self._batches_per_epoch
        rate = config.learning_rate
        order = torch.randperm(len(self._train)).to(device)
        for chunk in order.split(max(1, _ROWS_AT_ONCE // config.batch_size) * config.batch_size):
            all_inputs, all_targets = self._examples_of(chunk, epoch)
            for inputs, targets in zip(
                all_inputs.split(config.batch_size),
                all_targets.split(config.batch_size),
                strict=True,
            ):
                if len(inputs) == 1:
                    continue
                rate = learning_rate_at(config, step, num_steps)
                for group in self._optimizer.param_groups:
                    group["lr"] = rate
                if config.noise_std:
                    inputs = inputs + noise * torch.randn_like(inputs)
                outputs = self._outputs(inputs)
                loss = self._loss(outputs, targets)
                self._optimizer.zero_grad()
                loss.backward()
                if config.gradient_clip is not None:
                    nn.utils.clip_grad_norm_(parameters, config.gradient_clip)
                self._optimizer.step()
                if config.ema_decay is not None:
                    _average_into(averaged, parameters, config.ema_decay, step)
                total += loss.detach() * len(inputs)
                if has_classes:
                    num_right += (outputs.detach().argmax(1) == targets).sum()
                num_seen += len(inputs)
                step += 1
        accuracy = float(num_right) / num_seen if has_classes else None
        return float(total) / num_seen, accuracy, rate

    def _examples_of(self, positions: Tensor, epoch: int) -> tuple[Tensor, Tensor]:
        """Return augmented rows ``[B, P]`` and their targets: classes, their shares, or values."""
        rows, targets = self._train.rows, self._targets
        inputs = self._augmenter.rows(rows, positions, epoch)
        chosen = targets[positions]
        if self._config.augmentation.mixup is None:
            return inputs, chosen
        partners, shares = self._augmenter.partners(positions, len(rows), epoch)
        share = shares[:, None]
        others, other_targets = self._augmenter.rows(rows, partners, epoch), targets[partners]
        if self.scale is None:
            chosen = F.one_hot(chosen, self._num_classes).float()
            other_targets = F.one_hot(other_targets, self._num_classes).float()
        inputs = share * inputs + (1 - share) * others
        return inputs, share * chosen + (1 - share) * other_targets

    def _outputs(self, inputs: Tensor) -> Tensor:
        is_rounded = self._config.precision == "bfloat16"
        # Autocast leaves parameters and sums over rows in float32; only products are rounded.
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=is_rounded):
            return self._forward(inputs).float()

    def _loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        if self.scale is not None:
            return F.mse_loss(outputs, targets)
        return F.cross_entropy(outputs, targets)

    def _validation_score(self) -> float:
        if self._average is not None:
            # The average is of parameters; running statistics are those of the network.
            for mean, current in zip(self._average.buffers(), self._network.buffers(), strict=True):
                mean.copy_(current)
        part = self._validation
        outputs = read_rows(self._evaluated, part.rows, self._config.batch_size)
        if self.scale is None:
            return accuracy_of(outputs, part.labels)
        names = ("",) * part.labels.shape[1]
        errors = errors_of(self.scale(outputs), part.labels, names)
        return sum(error.r2 for error in errors) / len(errors)

    def _rehearse(self) -> None:
        """Try one batch, so that what a model or a device cannot do is said before training."""
        config, rows = self._config, self._train.rows
        device = rows.device
        asked = " and ".join(
            text
            for text, is_asked in (
                ("precision = 'bfloat16'", config.precision == "bfloat16"),
                ("compile = true", config.compile),
            )
            if is_asked
        )
        refusal = f"{asked}: not possible with model {config.model.kind!r} on {device.type}"
        on_gpu = config.precision == "bfloat16" and device.type == "cuda"
        if on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise TrainingError(f"{refusal} (this GPU has no bfloat16); leave it out")
        before = copy.deepcopy(self._network.state_dict())
        self._network.train()
        try:
            with self._seeded("classifier/rehearsal"):
                positions = torch.arange(min(len(rows), config.batch_size), device=device)
                inputs, targets = self._examples_of(positions, 1)
                self._loss(self._outputs(inputs), targets).backward()
        except (RuntimeError, NotImplementedError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise TrainingError(f"{refusal} ({reason}); leave it out") from error
        self._network.load_state_dict(before)
        self._optimizer.zero_grad()


@contextlib.contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside a block and give them back after it."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def _average_into(
    averaged: list[Tensor], parameters: list[Tensor], decay: float, step: int
) -> None:
    """Move the average towards the parameters.

    Early on it forgets faster, ``(1 + t) / (10 + t)`` at step ``t``, so that it does not hang on
    to the initial weights (the rule of TensorFlow's ExponentialMovingAverage).
    """
    warm = min(decay, (1 + step) / (10 + step))
    get_ema_multi_avg_fn(warm)(averaged, parameters, 0)
