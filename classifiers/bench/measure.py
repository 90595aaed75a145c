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
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import nefbench
from classifiers.bench.contenders import Contender, synchronise
from classifiers.bench.report import Growth, ModelTiming, TrainBenchReport
from classifiers.bench.zoo import HEADLINE, contenders
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
Shape = tuple[int, ...]


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
    growth_fields: tuple[int, ...] = (256, 512, 1024, 2048)
    """Sizes of the sets."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "repetitions", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} >= 1 (got {getattr(self, name)})")
        if not self.seconds > 0:
            raise ValueError(f"expected seconds > 0 (got {self.seconds})")
        if min(self.growth_fields, default=1) < 1:
            raise ValueError(f"expected growth_fields >= 1 (got {list(self.growth_fields)})")
        if not self.cases:
            raise ValueError(f"expected cases of {', '.join(CASES)} (got none)")
        names = tuple(contender.name for contender in contenders())
        for key, known in (("cases", tuple(CASES)), ("models", names), ("growth_models", names)):
            for name in getattr(self, key):
                if name not in known:
                    raise ValueError(f"expected {key} of {', '.join(known)} (got {name!r})")


QUICK = TrainBenchConfig(
    cases=("R1",), models=HEADLINE, repetitions=3, seconds=0.5, growth_fields=()
)
"""About a minute: models that have a baseline, on the smaller size."""


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
    product_rates: list[float] = []
    with _threads(config.threads):
        for case in config.cases:
            timings += _measure_case(case, chosen, config, device, say, product_rates)
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
        gflop_per_s=statistics.median(product_rates) / 1e9,
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
    case: str,
    chosen: list[Contender],
    config: TrainBenchConfig,
    device: str,
    say: Say,
    product_rates: list[float],
) -> list[ModelTiming]:
    space = CASES[case]
    generator = torch.Generator().manual_seed(0)
    num_rows = 4 * config.batch_size
    rows = torch.randn(num_rows, space.num_params, generator=generator).to(device)
    labels = torch.randint(NUM_CLASSES, (num_rows,), generator=generator).to(device)
    jobs: dict[str, _Job] = {}
    deviations: dict[str, float] = {}
    memory: dict[str, float] = {}
    operations: dict[str, int] = {}
    for contender in chosen:
        say(f"{case}: {contender.name}")
        job = _Job(contender, space, rows, labels, device)
        jobs[contender.name] = job
        baseline = jobs.get(contender.baseline or "")
        if baseline is not None and contender.is_same:
            deviations[contender.name] = _deviation(job, baseline, config.batch_size, device)
        memory[contender.name] = _memory_per_sample(job, config.batch_size, device)
        operations[contender.name] = _operations(job, config.batch_size)
    of_case: list[float] = []
    for repetition in range(config.repetitions):
        say(f"{case}: round {repetition + 1} of {config.repetitions}")
        for job in jobs.values():
            job.time(config.batch_size, config.seconds)
            of_case.append(_product_rate(device))
    product_rates += of_case
    rates = {name: statistics.median(job.rates) for name, job in jobs.items()}
    return [
        ModelTiming(
            case=case,
            name=name,
            num_parameters=sum(p.numel() for p in job.network.parameters()),
            num_modules=_count_modules(job.network),
            num_layer_modules=_largest_layer(job.network),
            batch_size=config.batch_size,
            samples_per_s=rates[name],
            samples_per_s_best=max(job.rates),
            samples_per_s_worst=min(job.rates),
            mflop_per_sample=operations[name] / config.batch_size / 1e6,
            floor_ms=1e3 * operations[name] / statistics.median(of_case),
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

    def count(tensor: Tensor) -> None:  # a graph that held its own results would stay forever
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            held.append(tensor.detach())

    inputs = job.feed(torch.arange(batch_size, device=device))
    with torch.autograd.graph.saved_tensors_hooks(count, _never_asked):
        outputs = job.network(inputs)
    del outputs
    return sum(kept.values()) / batch_size


def _never_asked(_: Any) -> Any:
    raise AssertionError("there is no backward pass")


def _operations(job: _Job, batch_size: int) -> int:
    """Count operations of the matrix products of one training step, which is taken."""
    in_place = {torch.ops.aten.addmm_: _operations_of_addmm}
    with FlopCounterMode(display=False, custom_mapping=in_place) as counter:
        job.step(batch_size)
    return int(counter.get_total_flops())


def _operations_of_addmm(total: Shape, left: Shape, right: Shape, **_: object) -> int:
    """Count one kind of product that torch's counter leaves out."""
    del total
    return 2 * left[0] * left[1] * right[1]


def _product_rate(device: str) -> float:
    """Measure operations per second of fp32 products: from the cache, or filling a GPU."""
    rows, width = (1024, 256) if device == "cpu" else (8192, 4096)
    left, right = (torch.randn(size, width, device=device) for size in (rows, width))
    product, best = left @ right, 0.0
    for _ in range(5):
        synchronise(device)
        begin = time.perf_counter()
        for _ in range(4):
            torch.mm(left, right, out=product)
        synchronise(device)
        best = max(best, 8 * rows * width**2 / (time.perf_counter() - begin))
    return best


def _count_modules(module: nn.Module) -> int:
    return sum(1 for _ in module.modules())


def _largest_layer(network: nn.Module) -> int:
    """Count the modules of the largest member of a list of modules; of the network without any."""
    lists = [m for m in network.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    own = [layers for layers in lists if layers is network or layers in network.children()]
    members = [_count_modules(member) for layers in own for member in layers]
    return max(members, default=_count_modules(network))


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
