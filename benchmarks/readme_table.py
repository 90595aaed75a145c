"""The README's table of fitting speed, from a recorded ``bench-fit.json``.

Run ``python benchmarks/readme_table.py benchmarks/fit-cpu/bench-fit.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

RIVALS = {"jax": "JAX", "one by one": "loop", "vmapped": "eager", "compiled": "compiled"}
WIDTH = "x32 "


def table(report: dict[str, Any]) -> str:
    """Return a Markdown table of the cases of width 32, in units a reader can compare."""
    head = ["field, pixels", "cores", "engine", "field-steps/s", "share of peak"]
    rows = [head + [f"times {name}" for name in RIVALS.values()]]
    rows.append(["---", *["---:"] * (len(rows[0]) - 1)])
    for case in (*report["rows"], *report["all_cores"]):
        if WIDTH not in case["name"] or case["fastest"] is None:
            continue
        best = case["timings"][case["fastest"]]
        ratios = case["ratios"]
        rows.append(
            [
                case["name"].split(",")[0],
                str(case["cores"]),
                case["fastest"],
                f"{best['fs_per_s']:,.0f}",
                f"{100 * best['share_of_peak']:.0f} %",
                *(f"{ratios[name]:.1f}" if name in ratios else "" for name in RIVALS),
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Print the table."""
    print(table(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))


if __name__ == "__main__":
    main()
