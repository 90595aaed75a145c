"""Entry point of the ``nefbench`` command."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

_ROOMS = ("fitting", "classifiers", "studies")
_SPINS = "5000"
"""How often a thread of OpenMP looks for the others before it sleeps. The library's own 300,000
turn small products into waiting wherever another program has one of the cores: training an MLP is
then several times slower. On a quiet machine both are about as fast."""


def main() -> None:
    """Run the command line, after checking that no other package took one of our names."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)  # read once, when torch is loaded
    home = Path(__file__).resolve().parent.parent
    for room in _ROOMS:
        found = importlib.util.find_spec(room)
        # A folder without __init__.py has no origin, only a place.
        places = [found.origin or "", *(found.submodule_search_locations or ())] if found else []
        origin = Path(next(filter(None, places), "nothing")).resolve()
        if origin != home / room / "__init__.py":
            sys.stderr.write(
                f"error: package {room!r} is shadowed: expected it in {home / room}, "
                f"got {origin}; rename that folder or change the working directory\n"
            )
            raise SystemExit(2)

    try:
        from nefbench.cli.app import app

        app(prog_name="nefbench")
    except KeyboardInterrupt:  # before a verb took charge
        sys.stderr.write("interrupted; nothing was begun\n")
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
