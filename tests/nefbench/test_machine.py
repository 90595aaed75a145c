from __future__ import annotations

import torch

from nefbench.machine import installed_version, processor_name


def test_the_processor_has_a_name() -> None:
    assert processor_name().strip()


def test_versions_are_those_of_the_installed_packages() -> None:
    installed = installed_version("torch")
    assert installed is not None
    assert torch.__version__.startswith(installed.split("+")[0])
    assert installed_version("no-such-package-anywhere") is None
