from __future__ import annotations

from pathlib import Path

from nefbench.energy import EnergyMeter


def set_zone(folder: Path, name: str, microjoules: int | str, most: int = 10_000_000) -> None:
    zone = folder / name
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "energy_uj").write_text(f"{microjoules}\n", encoding="ascii")
    (zone / "max_energy_range_uj").write_text(f"{most}\n", encoding="ascii")


def processors(meter: EnergyMeter) -> dict[str, float]:
    return {name: used for name, used in meter.joules.items() if name.startswith("processor")}


def test_a_machine_without_counters_has_nothing_to_say(tmp_path: Path) -> None:
    meter = EnergyMeter(tmp_path / "none")
    meter.read()

    assert processors(meter) == {}


def test_packages_are_added_up_and_their_parts_left_out(tmp_path: Path) -> None:
    set_zone(tmp_path, "intel-rapl:0", 1_000_000)
    set_zone(tmp_path, "intel-rapl:0:0", 500_000)
    set_zone(tmp_path, "intel-rapl:1", 2_000_000)
    meter = EnergyMeter(tmp_path)

    set_zone(tmp_path, "intel-rapl:0", 4_500_000)
    set_zone(tmp_path, "intel-rapl:0:0", 900_000)
    meter.read()
    set_zone(tmp_path, "intel-rapl:0", 5_000_000)
    set_zone(tmp_path, "intel-rapl:1", 2_250_000)
    meter.read()

    assert processors(meter) == {"processor 0": 4.0, "processor 1": 0.25}


def test_a_counter_that_went_round_goes_on(tmp_path: Path) -> None:
    set_zone(tmp_path, "intel-rapl:0", 9_000_000)
    meter = EnergyMeter(tmp_path)

    set_zone(tmp_path, "intel-rapl:0", 500_000)
    meter.read()

    assert processors(meter) == {"processor 0": 1.5}


def test_a_counter_that_cannot_be_read_any_more_stays(tmp_path: Path) -> None:
    set_zone(tmp_path, "intel-rapl:0", 1_000_000)
    meter = EnergyMeter(tmp_path)

    set_zone(tmp_path, "intel-rapl:0", "?")
    meter.read()

    assert processors(meter) == {"processor 0": 0.0}
