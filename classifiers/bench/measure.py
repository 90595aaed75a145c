"""Measure training steps: rounds over all contenders in turn, medians, equality before speed."""

from __future__ import annotations

import datetime
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

import nefbench
from classifiers.bench.contenders import Contender, synchronise
from classifiers.bench.report import Growth, ModelTiming, TrainBenchReport
from classifiers.bench.zoo import contenders
from classifiers.config import ClassifierConfig
from classifiers.examples import Examples, LabelledRows
from classifiers.space import WeightSpace, space_of
from classifiers.train import train_on_examples
from nefbench.fields import Siren
from nefbench.machine import installed_version, processor_name

NUM_CLASSES = 10
CASES = {
    "R1": space_of(Siren(hidden_dim=32, num_layers=3), 2, 1),
    "R3": space_of(Siren(hidden_dim=32, num_layers=3), 2, 3),
}
"""The two sizes that the literature trains on: SIREN 3x32 of grey and of RGB images."""

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TrainBenchConfig:
    """What is measured, and how long."""

    cases: tuple[str, ...] = ("R1", "R3")
    """Sizes of the fields."""
    models: tuple[str, ...] = ()
    """Names of contenders, baselines included; empty: all."""
    batch_size: int = 32
    """Fields per step."""
    repetitions: int = 5
    """Timings per contender, of which the median counts."""
    seconds: float = 1.0
    """Least time of a timing."""
    threads: int = 1
    """Processor threads of a step."""
    growth_models: tuple[str, ...] = ("mlp", "gnn")
    """Contenders that train an epoch on sets of growing size."""
    growth_fields: tuple[int, ...] = (512, 1024, 2048, 4096)
    """Sizes of the sets."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "repetitions", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1 (got {getattr(self, name)})")
        unknown = set(self.cases) - set(CASES)
        if unknown or not self.cases:
            raise ValueError(f"expected cases of {', '.join(CASES)} (got {self.cases})")
        known = [contender.name for contender in contenders()]
        for name in (*self.models, *self.growth_models):
            if name not in known:
                raise ValueError(f"expected models of {', '.join(known)} (got {name!r})")


def run_train_bench(
    config: TrainBenchConfig, *, device: str = "cpu", say: Say = lambda _: None
) -> TrainBenchReport:
    """Measure everything that the configuration asks for.

    Args:
        config: What to measure.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        say: Told what is being measured.
    """
    begin = time.perf_counter()
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    chosen = [c for c in contenders() if not config.models or c.name in config.models]
    timings: list[ModelTiming] = []
    with _threads(config.threads):
        for case in config.cases:
            timings += _measure_case(case, chosen, config, device, say)
        growth = [
            point
            for contender in chosen
            if contender.name in config.growth_models
            for point in _growth(contender, config, device, say)
        ]
    return TrainBenchReport(
        processor=processor_name(),
        device=device if device == "cpu" else torch.cuda.get_device_name(device),
        threads=config.threads,
        torch=torch.__version__,
        torch_geometric=installed_version("torch-geometric"),
        nefbench=nefbench.__version__,
        date=date,
        repetitions=config.repetitions,
        timings=tuple(timings),
        growth=tuple(growth),
        seconds=time.perf_counter() - begin,
    )


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _Job:
    """One contender on one case, ready to take steps."""

    def __init__(
        self, contender: Contender, space: WeightSpace, rows: Tensor, labels: Tensor, device: str
    ) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.network = contender.build(space, NUM_CLASSES).to(device)
        self.feed = contender.feed(space, rows)
        self.contender = contender
        self._labels, self._device = labels, device
        self._optimizer = torch.optim.AdamW(self.network.parameters(), lr=1e-5, fused=True)
        self._position = 0
        self.rates: list[float] = []

    def step(self, batch_size: int) -> None:
        """Train on the next rows."""
        place = torch.arange(self._position, self._position + batch_size) % len(self._labels)
        self._position += batch_size
        chosen = place.to(self._device)
        loss = F.cross_entropy(self.network(self.feed(chosen)), self._labels[chosen])
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()

    def time(self, batch_size: int, seconds: float) -> None:
        """Take steps for a while and keep the rate."""
        synchronise(self._device)
        begin, steps = time.perf_counter(), 0
        while True:
            self.step(batch_size)
            synchronise(self._device)
            steps += 1
            passed = time.perf_counter() - begin
            if passed >= seconds:
                break
        self.rates.append(steps * batch_size / passed)


def _measure_case(
    case: str, chosen: list[Contender], config: TrainBenchConfig, device: str, say: Say
) -> list[ModelTiming]:
    space = CASES[case]
    generator = torch.Generator().manual_seed(0)
    num_rows = 4 * config.batch_size
    rows = torch.randn(num_rows, space.num_params, generator=generator).to(device)
    labels = torch.randint(NUM_CLASSES, (num_rows,), generator=generator).to(device)
    jobs: dict[str, _Job] = {}
    deviations: dict[str, float] = {}
    memory: dict[str, float] = {}
    for contender in chosen:
        say(f"{case}: {contender.name}")
        job = _Job(contender, space, rows, labels, device)
        jobs[contender.name] = job
        baseline = jobs.get(contender.baseline or "")
        if baseline is not None and contender.is_same:
            deviations[contender.name] = _deviation(job, baseline, config.batch_size, device)
        memory[contender.name] = _memory_per_sample(job, config.batch_size, device)
        job.step(config.batch_size)
    for repetition in range(config.repetitions):
        say(f"{case}: round {repetition + 1} of {config.repetitions}")
        for job in jobs.values():
            job.time(config.batch_size, config.seconds)
    rates = {name: statistics.median(job.rates) for name, job in jobs.items()}
    return [
        ModelTiming(
            case=case,
            name=name,
            num_parameters=sum(p.numel() for p in job.network.parameters()),
            num_modules=sum(1 for _ in job.network.modules()),
            batch_size=config.batch_size,
            samples_per_s=rates[name],
            samples_per_s_best=max(job.rates),
            samples_per_s_worst=min(job.rates),
            memory_per_sample=memory[name],
            baseline=job.contender.baseline if job.contender.baseline in rates else None,
            ratio=(
                rates[name] / rates[job.contender.baseline]
                if job.contender.baseline in rates
                else None
            ),
            deviation=deviations.get(name),
        )
        for name, job in jobs.items()
    ]


def _deviation(job: _Job, baseline: _Job, batch_size: int, device: str) -> float:
    """Compare outputs after giving both networks the same state, dropout off."""
    baseline.network.load_state_dict(job.network.state_dict())
    place = torch.arange(batch_size, device=device)
    outputs = []
    for one in (job, baseline):
        one.network.eval()
        with torch.no_grad():
            outputs.append(one.network(one.feed(place)))
        one.network.train()
    size = outputs[0].square().mean().sqrt()
    return float((outputs[1] - outputs[0]).abs().max() / size)


def _memory_per_sample(job: _Job, batch_size: int, device: str) -> float:
    """Bytes of all tensors that one forward pass keeps, parameters excluded, per field."""
    own = {p.untyped_storage().data_ptr() for p in job.network.parameters()}
    kept: dict[int, int] = {}
    held: list[Tensor] = []  # alive, so that no address is used twice

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor)
        return tensor

    inputs = job.feed(torch.arange(batch_size, device=device))
    with torch.autograd.graph.saved_tensors_hooks(count, _same):
        outputs = job.network(inputs)
    del outputs
    return sum(kept.values()) / batch_size


def _same(tensor: Any) -> Any:
    return tensor


def _growth(
    contender: Contender, config: TrainBenchConfig, device: str, say: Say
) -> Iterator[Growth]:
    """Train an epoch on sets of growing size, through the trainer."""
    space = CASES["R1"]
    generator = torch.Generator().manual_seed(1)

    def part(size: int) -> LabelledRows:
        return LabelledRows(
            torch.randn(size, space.num_params, generator=generator),
            torch.arange(size) % NUM_CLASSES,
        )

    settings = ClassifierConfig(
        model=contender.model, num_epochs=1, batch_size=config.batch_size, seeds=(0,)
    )
    held_out = {"validation": part(NUM_CLASSES), "test": part(NUM_CLASSES)}
    for size in config.growth_fields:
        say(f"{contender.name}: an epoch on {size:,} fields")
        examples = Examples(
            "growth", space, tuple(map(str, range(NUM_CLASSES))),
            {"train": part(size), **held_out}, 0, "growth",
        )  # fmt: skip
        report = train_on_examples(examples, settings, device=device)
        yield Growth(
            name=contender.name,
            num_fields=size,
            seconds=report.timings[0].step_seconds,
        )
