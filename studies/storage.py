"""Where trials are recorded: a journal file, or a database that several machines share."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import logging
import warnings
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.pruners import BasePruner, MedianPruner, NopPruner
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock
from sqlalchemy.pool import NullPool

from nefbench.config import config_from_mapping, differing_keys
from nefbench.errors import ConfigError
from studies.design import Search, StudyConfig

JOURNAL_NAME = "journal.log"
"""File of the trials in the folder of a study."""
_CONFIG, _VERSION = "config", "version"
_ROOMS = ("nefbench", "fitting", "classifiers", "studies")


class _JournalLock(JournalFileSymlinkLock):
    """Optuna's lock of a journal, held together with one that the system releases.

    Optuna's own stays behind when a process is killed while it writes, for half a minute by
    default. Here it is short: among ourselves the other one decides.
    """

    _SECONDS_LEFT_BEHIND = 3

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), self._SECONDS_LEFT_BEHIND)
        # Not this object: to take over a lock left behind, it releases itself.
        self._common = JournalFileSymlinkLock(str(path), self._SECONDS_LEFT_BEHIND)
        self._ours = FileLock(path.with_name(f"{path.name}.own.lock"))

    def acquire(self) -> bool:
        self._ours.acquire()
        try:
            return self._common.acquire()
        except BaseException:
            self._ours.release()
            raise

    def release(self) -> None:
        with contextlib.suppress(RuntimeError):  # others took it away from us
            self._common.release()
        self._ours.release()


def open_storage(place: str) -> BaseStorage:
    """Open the storage at a path (a journal) or at an address such as ``postgresql://…``.

    Raises:
        ConfigError: If it cannot be opened.
    """
    if "://" not in place:
        path = Path(place).absolute()  # a lock is a link to it
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return JournalStorage(JournalFileBackend(str(path), _JournalLock(path)))
        except (OSError, ValueError, KeyError) as error:
            raise ConfigError(f"{path} is no journal of Optuna: {error}") from error
    try:
        # No pool: workers are idle for minutes, and a server has few connections to give.
        return RDBStorage(place, engine_kwargs={"poolclass": NullPool})
    except Exception as error:  # SQLAlchemy's, the driver's, or a driver that is missing
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"--storage {_without_password(place)}: {reason}; postgresql+psycopg://… needs "
            f"pip install 'nefbench[cluster]'"
        ) from error


def open_study(config: StudyConfig, storage: BaseStorage) -> optuna.Study:
    """Begin a study, or open the one that was begun.

    Raises:
        ConfigError: If the storage holds another study of this name, or one that was begun by
            another version of the code.
    """
    _quieten()
    pruner = pruner_of(config)
    try:
        study = optuna.load_study(study_name=config.name, storage=storage, pruner=pruner)
    except KeyError:
        study = optuna.create_study(
            study_name=config.name,
            storage=storage,
            directions=["maximize"] * len(config.design.objectives),
            load_if_exists=True,  # another process may have been faster
            pruner=pruner,
        )
    known = study.user_attrs
    if _CONFIG not in known:
        study.set_user_attr(_VERSION, code_version())
        study.set_user_attr(_CONFIG, config.identity)
        return study
    differences = differing_keys(known[_CONFIG], config.identity)
    if differences:
        listed = "; ".join(
            f"{key} = {there!r} there, {here!r} here" for key, there, here in differences[:5]
        )
        raise ConfigError(
            f"the storage holds another study {config.name!r} ({listed}); choose another --out, "
            f"or another name with --set name=…"
        )
    if known.get(_VERSION) != code_version():
        raise ConfigError(
            f"study {config.name!r} was begun by nefbench {known.get(_VERSION)}, this is "
            f"{code_version()}: finish it with the same code, or choose another --out"
        )
    return study


def load_study(name: str | None, storage: BaseStorage) -> tuple[optuna.Study, StudyConfig]:
    """Open a study to read it, whatever version began it.

    Args:
        name: Of the study; may be left out where the storage holds one.
        storage: Where it is.

    Raises:
        ConfigError: If it is not there, or no study of nefbench.
    """
    _quieten()
    names = [summary.study_name for summary in optuna.get_all_study_summaries(storage)]
    if name is None and len(names) == 1:
        name = names[0]
    if name not in names:
        raise ConfigError(
            f"the storage holds no study {name!r}: it has {', '.join(names) or 'none'}"
            if name is not None or not names
            else f"the storage holds several studies, name one of {', '.join(names)}"
        )
    study = optuna.load_study(study_name=name, storage=storage)
    mapping = study.user_attrs.get(_CONFIG)
    if mapping is None:
        raise ConfigError(f"study {name!r} was not made by nefbench study")
    return study, config_from_mapping(StudyConfig, mapping)


def pruner_of(config: StudyConfig) -> BasePruner:
    """Return what stops trainings that are not worth finishing."""
    design = config.design
    if isinstance(design, Search) and design.pruning:
        return MedianPruner(n_startup_trials=5, n_warmup_steps=2)
    return NopPruner()


def sampler_of(config: StudyConfig, index: int) -> BaseSampler:
    """Return the sampler for the next trial.

    Args:
        config: The study.
        index: Trials that were begun before: a study that was stopped goes on as if it was not.
    """
    design = config.design
    if not isinstance(design, Search):
        return RandomSampler(0)  # asked for nothing: every parameter of a grid is given
    seed = int.from_bytes(hashlib.sha256(f"{design.seed} {index}".encode()).digest()[:4], "big")
    if design.sampler == "random":
        return RandomSampler(seed)
    if design.sampler == "nsga2":
        return NSGAIISampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, constant_liar=True, seed=seed)


def code_version() -> str:
    """Version of the package and the first digits of a digest of its code."""
    content = hashlib.sha256()
    home = Path(__file__).resolve().parent.parent
    for room in _ROOMS:
        for path in sorted((home / room).rglob("*.py")):
            content.update(path.relative_to(home).as_posix().encode())
            content.update(path.read_bytes())
    return f"{importlib.metadata.version('nefbench')} ({content.hexdigest()[:8]})"


def _quieten() -> None:
    optuna.logging.set_verbosity(logging.ERROR)


def _without_password(address: str) -> str:
    scheme, _, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
