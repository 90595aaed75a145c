from __future__ import annotations

import pickle

from nefbench.errors import MissingDependencyError


def test_a_missing_dependency_travels_between_processes_with_its_remedy() -> None:
    error = MissingDependencyError("reading .hdf5", "h5py", "hdf5")

    again = pickle.loads(pickle.dumps(error))

    assert str(again) == str(error) == "reading .hdf5 needs h5py: pip install 'nefbench[hdf5]'"
