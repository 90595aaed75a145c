"""Start files of a fit: what its record says of them, and the copies beside its parts.

A neural dataset keeps the start file of its fields, given or learned, in the folder of the config.
So it can be continued wherever it lies, and its record names a file by its content.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from fitting.config import FitConfig
from fitting.inits import FromFile, Meta
from fitting.meta_learning import how_made, learn_start
from fitting.optimizers import LearnedSGD
from nefbench import files
from nefbench.errors import ConfigError, DatasetFormatError, Interrupted
from nefbench.signals import GridSignals, Signals
from nefbench.weights.start_file import (
    checksum_of,
    read_start_file,
    start_for,
    step_sizes_for,
    write_start_file,
)

START_NAME = "start.npz"
"""The start file, in the folder of a config."""
STEP_SIZES_NAME = "step-sizes.npz"
"""The file of step sizes that are not those of the start."""
_CHECKPOINT_NAME = ".start.checkpoint.npz"


def recorded_config(signals: Signals, config: FitConfig, folder: Path) -> FitConfig:
    """Return the recipe as the record of the dataset holds it.

    Paths become the names of the dataset's own copies, with the checksums of their content.

    Args:
        signals: What is fitted.
        config: The recipe.
        folder: Of the config in the dataset.

    Raises:
        ConfigError: If the start or the optimizer cannot be had with this recipe.
        DatasetFormatError: If a start file cannot be used for these fields.
    """
    init, optimizer = config.init, config.optimizer
    _check_refits(signals, config)
    if isinstance(init, Meta):
        init = init.filled_in()
        if init.algorithm == "reptile" and isinstance(optimizer, LearnedSGD):
            raise ConfigError(
                "init: reptile learns with the optimizer of the fit, which cannot be learned-sgd; "
                "take init.algorithm = 'maml', or init.kind = 'file'"
            )
    if isinstance(init, FromFile):
        source = _source(init.path, init.sha256, folder / START_NAME)
        init = FromFile(path=Path(START_NAME), sha256=init.sha256 or checksum_of(source))
        start = start_for(source, init.sha256, config.field, signals.in_dim, signals.num_channels)
        _check_own_step_sizes(optimizer, start.step_sizes is not None)
    else:
        _check_own_step_sizes(optimizer, isinstance(init, Meta) and init.learn_step_sizes)
    if isinstance(optimizer, LearnedSGD) and optimizer.path is not None:
        source = _source(optimizer.path, optimizer.sha256, folder / STEP_SIZES_NAME)
        sha256 = optimizer.sha256 or checksum_of(source)
        start_for(source, sha256, config.field, signals.in_dim, signals.num_channels)
        num_params = config.field.spec(signals.in_dim, signals.num_channels).num_params
        step_sizes_for(source, sha256, num_params)
        optimizer = dataclasses.replace(optimizer, path=Path(STEP_SIZES_NAME), sha256=sha256)
    return dataclasses.replace(config, init=init, optimizer=optimizer)


def config_with_files(
    signals: Signals,
    config: FitConfig,
    recorded: FitConfig,
    folder: Path,
    *,
    device: str = "cpu",
    threads: int = 1,
    on_meta: Callable[[int, int, float], None] = lambda *_: None,
    copies: Sequence[Path] = (),
) -> FitConfig:
    """Put the start files into the folder, learning the start if need be.

    Args:
        signals: What is fitted.
        config: The recipe as asked for.
        recorded: What ``recorded_config`` made of it.
        folder: Of the config in the dataset.
        device: Where a start is learned.
        threads: See ``learn_start``.
        on_meta: Told ``(outer steps done, outer steps, loss)`` while a start is learned.
        copies: Folders of other configs: a start that was learned for one of them is copied.

    Returns:
        The recorded recipe with the paths of these files: what every worker needs.

    Raises:
        ConfigError: If learning diverges.
        Interrupted: On Ctrl-C while a start is learned; it goes on where it was.
    """
    place = folder / START_NAME
    init, optimizer = recorded.init, recorded.optimizer
    if isinstance(init, Meta):
        _learn(signals, recorded, place, [copy / START_NAME for copy in copies], device, threads,
               on_meta)  # fmt: skip
        init = FromFile(path=place, sha256=checksum_of(place))
    elif isinstance(init, FromFile):
        assert isinstance(config.init, FromFile), "the record is that of the recipe"
        assert init.sha256 is not None, "the record names the content"
        _copy(config.init.path, init.sha256, place)
        init = dataclasses.replace(init, path=place)
    if isinstance(optimizer, LearnedSGD):
        if optimizer.path is None:
            assert isinstance(init, FromFile), "checked for the record"
            optimizer = dataclasses.replace(optimizer, path=place, sha256=init.sha256)
        else:
            assert isinstance(config.optimizer, LearnedSGD), "the record is that of the recipe"
            assert config.optimizer.path is not None, "the recipe named a file"
            assert optimizer.sha256 is not None, "the record names the content"
            own = folder / STEP_SIZES_NAME
            _copy(config.optimizer.path, optimizer.sha256, own)
            optimizer = dataclasses.replace(optimizer, path=own)
    return dataclasses.replace(recorded, init=init, optimizer=optimizer)


def _check_refits(signals: Signals, config: FitConfig) -> None:
    """Refuse fields that would all be the same."""
    same_start = isinstance(config.init, FromFile | Meta)
    if not (same_start and config.num_refits > 1 and isinstance(signals, GridSignals)):
        return
    if config.num_sampled(signals.num_points) == signals.num_points:
        raise ConfigError(
            f"num_refits: fits of the same signal from one start are all the same; leave it out, "
            f"or set pixel_fraction < 1, or init.kind = 'shared' (got {config.init.kind!r})"
        )


def _check_own_step_sizes(optimizer: object, start_has_them: bool) -> None:
    if isinstance(optimizer, LearnedSGD) and optimizer.path is None and not start_has_them:
        raise ConfigError(
            "optimizer: learned-sgd needs step sizes: set init.kind = 'meta' and "
            "init.learn_step_sizes = true, or the path of a start file that holds them"
        )


def _source(path: Path, sha256: str | None, own: Path) -> Path:
    """Return the dataset's own copy if it is the file asked for, else the path given."""
    if sha256 is not None and own.exists() and checksum_of(own) == sha256:
        return own
    return path.expanduser()


def _copy(path: Path, sha256: str, own: Path) -> None:
    source = _source(path, sha256, own)
    if source != own:
        read_start_file(source, sha256)
        files.write_bytes(own, source.read_bytes())


def _learn(
    signals: Signals,
    config: FitConfig,
    place: Path,
    copies: Sequence[Path],
    device: str,
    threads: int,
    on_meta: Callable[[int, int, float], None],
) -> None:
    """Learn the start, unless it lies there already or in a copy."""
    made = how_made(signals, config)
    for known in filter(Path.exists, (place, *copies)):
        try:
            is_it = read_start_file(known).made == made
        except DatasetFormatError:  # damaged: learned again
            continue
        if is_it:
            if known != place:
                files.write_bytes(place, known.read_bytes())
            return
    checkpoint = place.with_name(_CHECKPOINT_NAME)
    done = 0

    def follow(step: int, num_steps: int, loss: float) -> None:
        nonlocal done
        done = step
        on_meta(step, num_steps, loss)

    try:
        start = learn_start(
            signals, config, device=device, threads=threads, checkpoint=checkpoint, on_step=follow
        )
    except KeyboardInterrupt as error:
        assert isinstance(config.init, Meta)
        raise Interrupted(
            f"interrupted in outer step {done} of {config.init.outer_steps} of learning the start: "
            f"the same command continues from the last checkpoint"
        ) from error
    write_start_file(place, start)
    checkpoint.unlink(missing_ok=True)
