"""What was measured, as plain records that become JSON."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ModelTiming:
    """One model, in one formulation, on one case; rates are medians over repetitions.

    Attributes:
        case: ``R1`` or ``R3``.
        name: Of the contender.
        num_parameters: Of the network.
        num_modules: ``nn.Module`` objects of the network.
        num_layer_modules: Those of its largest layer: member of a list of modules.
        batch_size: Fields per step.
        samples_per_s: Fields per second of training steps: forward, backward, optimizer.
        samples_per_s_best: Of the fastest repetition.
        samples_per_s_worst: Of the slowest.
        mflop_per_sample: Millions of operations of the matrix products of a step, per field: two
            per multiply and add, forward and backward, whatever is computed twice included.
        floor_ms: Time of these products alone for a step, at the measured rate of products.
        memory_per_sample: Bytes that the forward pass keeps for the backward pass, per field.
        baseline: Contender that the ratio is over; None where there is none.
        ratio: Rate over that of the baseline.
        deviation: Largest difference of an output from the baseline's with the same state,
            relative to the root mean square of the outputs; None where they differ by design.
    """

    case: str
    name: str
    num_parameters: int
    num_modules: int
    num_layer_modules: int
    batch_size: int
    samples_per_s: float
    samples_per_s_best: float
    samples_per_s_worst: float
    mflop_per_sample: float
    floor_ms: float
    memory_per_sample: float
    baseline: str | None
    ratio: float | None
    deviation: float | None


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Training of one model on sets of fields of growing size.

    Attributes:
        name: Of the model.
        num_fields: Training fields.
        seconds: Of one epoch, loading excluded.
    """

    name: str
    num_fields: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class TrainBenchReport:
    """Everything one run measured.

    Attributes:
        processor: Its name.
        device: ``cpu``, or the name of the GPU.
        threads: Threads of a step.
        torch: Version.
        torch_geometric: Version; None where it is not installed.
        nefbench: Version.
        date: When the run began, ISO 8601, UTC.
        repetitions: Per contender.
        gflop_per_s: Rate of large fp32 matrix products, median over all rounds of all cases.
        timings: One per contender and case.
        growth: One per model and size.
        seconds: Wall time of the run.
    """

    processor: str
    device: str
    threads: int
    torch: str
    torch_geometric: str | None
    nefbench: str
    date: str
    repetitions: int
    gflop_per_s: float
    timings: tuple[ModelTiming, ...]
    growth: tuple[Growth, ...]
    seconds: float
