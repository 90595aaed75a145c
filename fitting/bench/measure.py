"""Run the benchmark: contenders in processes of their own, rounds interleaved, all numbers kept."""

from __future__ import annotations

import contextlib
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from fitting.bench.cases import BenchConfig, Case, JobConfig, sines_per_field_step
from fitting.bench.contenders import CONTENDERS, ENGINE_NAMES, REFERENCE, ROUNDED, names, refusal
from fitting.bench.machine import describe_machine, sines_per_second
from fitting.bench.report import (
    BenchReport,
    CaseResult,
    CompileTime,
    Floors,
    JobResult,
    Peak,
    PeakMemory,
    ScalingPoint,
    Timing,
)
from fitting.bench.worker import USUAL_STEPS, Job, Pace, Place, Run, Worker, WorkerError
from fitting.engines import choose_engine
from fitting.executors import count_cores

_STEPS_SCALING_FIELDS = 16
_NOTICEABLE_S = 0.01
"""Compile time below which a contender has nothing to compile."""

Say = Callable[[str], None]


def run_bench(
    config: BenchConfig, *, device: str = "cpu", say: Say = lambda _: None
) -> BenchReport:
    """Measure everything that the configuration asks for.

    Args:
        config: What to measure.
        device: ``cpu``, ``cuda`` or ``cuda:N``; on a GPU there is no second pass over all cores
            and no memory of the process, but a fit of MNIST's size.
        say: Told what is being measured.
    """
    begin = time.perf_counter()
    machine = describe_machine(device)
    on_gpu = device != "cpu"
    with tempfile.TemporaryDirectory(prefix="nefbench-bench-") as caches:
        one = _Bench(config, _one_core(device), Path(caches), say)
        with one:
            peak = one.peak()
            rows = tuple(one.case(case) for case in (*config.headline, *config.others))
        compiled = tuple(one.compile_times())
        peak_all, all_cores = None, tuple[CaseResult, ...]()
        if not on_gpu and machine.cores > 1:
            place = Place(device=device, core=None, threads=machine.cores)
            with _Bench(config, place, Path(caches), say) as every:
                if every.has_contenders:
                    peak_all = every.peak()
                    all_cores = tuple(every.case(case) for case in config.headline)
        scaling = tuple(one.scaling())
        memory = () if on_gpu else tuple(_memory(config, Path(caches), say))
        job = tuple(one.job()) if on_gpu else ()
    return BenchReport(
        machine=machine,
        peak=peak,
        peak_all_cores=peak_all,
        check_steps=config.check_steps,
        repetitions=config.repetitions,
        rows=rows,
        all_cores=all_cores,
        compile=compiled,
        scaling=scaling,
        memory=memory,
        floors=_floors(config, peak, device) if on_gpu else None,
        job=job,
        seconds=time.perf_counter() - begin,
    )


def _one_core(device: str) -> Place:
    """Pin to the last core: the first takes most of a system's interrupts."""
    can_pin = device == "cpu" and hasattr(os, "sched_getaffinity")
    return Place(device=device, core=max(os.sched_getaffinity(0)) if can_pin else None, threads=1)


class _Bench:
    """Workers of one place, started when first needed; stops them as a context."""

    def __init__(self, config: BenchConfig, place: Place, caches: Path, say: Say) -> None:
        self._config, self._place, self._caches, self._say = config, place, caches, say
        self._workers: dict[str, Worker] = {}
        self._cold: dict[tuple[str, str], float] = {}
        self._peak: Peak | None = None

    def __enter__(self) -> _Bench:
        """Start all at once: loading libraries takes seconds and is not timed."""
        for name in self._names:
            if any(self._refusal(name, case) is None for case in self._config.headline):
                self._worker(name)
        for worker in self._workers.values():
            worker.call("ready")  # one that still loads would take a core from the others
        return self

    def __exit__(self, *_: object) -> None:
        """Stop all."""
        for name in list(self._workers):
            self._stop(name)

    @property
    def has_contenders(self) -> bool:
        """Whether anybody can be measured here."""
        return bool(self._workers)

    def peak(self) -> Peak:
        """Measure what the rates are compared with."""
        self._say(f"{self._where}: peak")
        anyone = next(iter(self._workers.values()))
        self._peak = anyone.call("peak")
        return self._the_peak

    def case(self, case: Case) -> CaseResult:
        """Compare losses, then time all contenders in turns."""
        refused: dict[str, str] = {}
        losses, paces = self._losses_and_paces(case, refused)
        runs = self._runs(case, paces, refused)
        timings = {
            name: self._timing(case, paces[name], runs[name])
            for name in paces
            if name not in refused
        }
        engines = [name for name in timings if name in ENGINE_NAMES and name not in ROUNDED]
        fastest = max(engines, key=lambda name: timings[name].fs_per_s, default=None)
        reference = losses.get(REFERENCE)
        return CaseResult(
            name=case.name,
            case=case,
            cores=self._place.threads,
            flop_per_field_step=case.flop,
            timings=timings,
            refused=refused,
            losses=losses,
            loss_deviation={
                name: abs(loss / reference - 1) for name, loss in losses.items() if reference
            },
            fastest=fastest,
            ratios={
                name: timings[fastest].fs_per_s / timing.fs_per_s
                for name, timing in timings.items()
                if fastest is not None
            },
        )

    def _losses_and_paces(
        self, case: Case, refused: dict[str, str]
    ) -> tuple[dict[str, float], dict[str, Pace]]:
        """Compile and run every contender once; adds to ``refused``."""
        config, losses, paces = self._config, dict[str, float](), dict[str, Pace]()
        for name in self._names:
            why = self._refusal(name, case)
            if why is not None:
                refused[name] = why
                continue
            self._say(f"{self._where}: {case.name}: {name}: compile, check the loss")
            with self._noting_failure(name, refused):
                worker = self._worker(name)
                self._cold[case.name, name] = worker.call("prepare", case)
                losses[name] = worker.call("check", case, config.check_fields, config.check_steps)
                paces[name] = worker.call("pace", case)
        return losses, paces

    def _runs(
        self, case: Case, paces: Mapping[str, Pace], refused: dict[str, str]
    ) -> dict[str, list[Run]]:
        """Time contenders in turns, so that a busy minute of the machine hits all; as above."""
        config, runs = self._config, {name: list[Run]() for name in paces}
        for repetition in range(1, config.repetitions + 1):
            self._say(f"{self._where}: {case.name}: round {repetition} of {config.repetitions}")
            for name in runs:
                if name in refused:
                    continue
                steps = _steps(paces[name], config.seconds)
                with self._noting_failure(name, refused):
                    worker = self._worker(name)
                    runs[name].append(worker.call("time", case, None, steps, config.seconds))
        return runs

    @contextlib.contextmanager
    def _noting_failure(self, name: str, refused: dict[str, str]) -> Iterator[None]:
        """Go on without a contender that failed: it must not cost the others their numbers."""
        try:
            yield
        except WorkerError as error:
            refused[name] = f"failed: {error}"
            self._say(f"{self._where}: {name} failed: {error}")
            self._stop(name)  # a new process has none of its troubles

    def compile_times(self) -> Iterator[CompileTime]:
        """Load what ``case`` compiled in fresh processes, headline cases only."""
        for name in self._names:
            cases = [
                case
                for case in self._config.headline
                if self._cold.get((case.name, name), 0.0) > _NOTICEABLE_S
            ]
            if not cases:
                continue
            self._say(f"{self._where}: compile time of {name}")
            with _saying_failure(self._say, name), self._new_worker(name) as worker:
                for case in cases:
                    yield CompileTime(
                        case=case.name,
                        contender=name,
                        cold_s=self._cold[case.name, name],
                        warm_s=worker.call("prepare", case),
                    )

    def scaling(self) -> Iterator[ScalingPoint]:
        """Vary one thing at a time, for the engine that ``auto`` takes and for the reference."""
        points = _scaling_points(self._config)
        if not points:
            return
        base = self._config.headline[0]
        auto = choose_engine("auto", base.problem(USUAL_STEPS, self._place.device)).name
        for engine in dict.fromkeys((auto, REFERENCE)):
            with _saying_failure(self._say, engine), self._new_worker(engine) as worker:
                for varied, value, case, fields, steps in points:
                    if self._refusal(engine, case) is not None:
                        continue
                    self._say(f"{self._where}: scaling of {engine}: {value} {varied}")
                    worker.call("prepare", case)
                    pace: Pace = worker.call("pace", case)  # and warm up
                    count = fields or pace.block_size
                    runs: list[Run] = [
                        worker.call("time", case, count, steps, self._config.seconds / 2)
                        for _ in range(min(3, self._config.repetitions))
                    ]
                    yield ScalingPoint(
                        varied=varied,
                        value=value,
                        engine=engine,
                        fields=count,
                        steps=steps,
                        fs_per_s=statistics.median(run.field_steps / run.wall_s for run in runs),
                    )

    def job(self) -> Iterator[JobResult]:
        """Fit as much of MNIST as time allows with every engine, and compare PSNR."""
        asked = self._config.job
        done: dict[str, Job] = {}
        for name in self._names:
            if name not in ENGINE_NAMES or self._refusal(name, asked.case) is not None:
                continue
            self._say(f"{self._where}: {asked.num_fields:,} fields of {asked.case.name}: {name}")
            with _saying_failure(self._say, name), self._new_worker(name) as worker:
                done[name] = worker.call(
                    "job", asked.case, asked.num_fields, asked.num_steps, asked.seconds,
                    asked.quality_fields,
                )  # fmt: skip
        if REFERENCE not in done:
            return
        for name, job in done.items():
            yield _job_result(name, job, done[REFERENCE], asked, self._the_peak)

    @property
    def _where(self) -> str:
        if self._place.device != "cpu":
            return self._place.device
        return f"{self._place.threads} core{'s' * (self._place.threads > 1)}"

    @property
    def _the_peak(self) -> Peak:
        assert self._peak is not None, "measured first"
        return self._peak

    @functools.cached_property
    def _names(self) -> tuple[str, ...]:
        """On several cores only those that can use them from one process."""
        threaded = {contender.name for contender in CONTENDERS if contender.uses_threads}
        return tuple(
            name
            for name in names()
            if name not in self._config.without and (self._place.threads == 1 or name in threaded)
        )

    def _refusal(self, name: str, case: Case) -> str | None:
        return refusal(name, case.problem(USUAL_STEPS, self._place.device))

    def _worker(self, name: str) -> Worker:
        if name not in self._workers:
            self._workers[name] = self._new_worker(name)
        return self._workers[name]

    def _new_worker(self, name: str) -> Worker:
        return Worker(name, self._place, self._caches)

    def _stop(self, name: str) -> None:
        self._workers.pop(name).__exit__()

    def _timing(self, case: Case, pace: Pace, runs: Sequence[Run]) -> Timing:
        rates = [run.field_steps / run.wall_s for run in runs]
        rate = statistics.median(rates)
        gflop = rate * case.flop / 1e9
        return Timing(
            fields=pace.block_size,
            steps=_steps(pace, self._config.seconds),
            fs_per_s=rate,
            fs_per_s_best=max(rates),
            fs_per_s_worst=min(rates),
            cpu_over_wall=sum(run.cpu_s for run in runs) / sum(run.wall_s for run in runs),
            gflop_per_s=gflop,
            share_of_peak=gflop / self._the_peak.gflop_per_s,
        )


@contextlib.contextmanager
def _saying_failure(say: Say, name: str) -> Iterator[None]:
    """Go on to the next engine when one fails: what was measured before must not be lost."""
    try:
        yield
    except WorkerError as error:
        say(f"{name} failed: {error}")


def _steps(pace: Pace, seconds: float) -> int:
    """Steps after which one block has taken about so long."""
    return max(2, round(seconds * pace.fs_per_s / pace.block_size))


def _scaling_points(config: BenchConfig) -> list[tuple[str, int, Case, int | None, int]]:
    """List what is varied, its value, the case, fields (None: one block) and steps."""
    base, scaling = config.headline[0], config.scaling
    steps = scaling.num_steps
    return [
        *(("fields", count, base, count, steps) for count in scaling.fields),
        *(("pixels", side**2, replace(base, side=side), None, steps) for side in scaling.sides),
        *(("width", width, _widened(base, width), None, steps) for width in scaling.widths),
        *(("steps", count, base, _STEPS_SCALING_FIELDS, count) for count in scaling.steps),
    ]


def _widened(case: Case, width: int) -> Case:
    return replace(case, field=replace(case.field, hidden_dim=width))


def _memory(config: BenchConfig, caches: Path, say: Say) -> Iterator[PeakMemory]:
    """Fit growing numbers of fields, each in a process that has done nothing else."""
    base = config.headline[0]
    place = Place(device="cpu", core=None, threads=count_cores())
    auto = choose_engine("auto", base.problem(USUAL_STEPS)).name
    for engine in dict.fromkeys((auto, REFERENCE)):
        for side in dict.fromkeys(case.side for case in config.headline):
            for count in config.memory_fields:
                say(f"memory of {engine}: {count:,} fields of {side}x{side}")
                with _saying_failure(say, engine), Worker(engine, place, caches) as worker:
                    peak = worker.call("memory", replace(base, side=side), count)
                    yield PeakMemory(engine=engine, side=side, fields=count, peak_mb=peak)


def _floors(config: BenchConfig, peak: Peak, device: str) -> Floors:
    """Least time of the whole job: its products at the measured peak, its sines at 16 per clock."""
    job = config.job
    field_steps = job.num_fields * job.num_steps
    rate = sines_per_second(device)
    values = field_steps * sines_per_field_step(job.case)
    return Floors(
        multiply_adds_s=field_steps * job.case.flop / (peak.gflop_per_s * 1e9),
        sines_s=None if rate is None or not values else values / rate,
    )


def _job_result(name: str, job: Job, reference: Job, asked: JobConfig, peak: Peak) -> JobResult:
    rate = job.fields * asked.num_steps / job.seconds
    gflop = rate * asked.case.flop / 1e9
    pairs = zip(job.psnr_db, reference.psnr_db, strict=False)  # blocks may be of different sizes
    differences = [own - other for own, other in pairs]
    return JobResult(
        engine=name,
        fields=job.fields,
        steps=asked.num_steps,
        seconds=job.seconds,
        seconds_whole=asked.num_fields * asked.num_steps / rate,
        fs_per_s=rate,
        gflop_per_s=gflop,
        share_of_peak=gflop / peak.gflop_per_s,
        psnr_db_median=statistics.median(job.psnr_db),
        psnr_db_difference=statistics.median(differences),
        psnr_db_worst=min(differences),
        peak_memory_mb=job.peak_memory_mb,
    )
