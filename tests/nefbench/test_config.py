from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nefbench.config import (
    apply_overrides,
    config_from_mapping,
    config_to_mapping,
    differing_keys,
    digest,
    load_json,
    load_toml,
    nearest,
    with_values,
)
from nefbench.errors import ConfigError
from nefbench.fields import MLP, FieldConfig, FourierNet, GaborNet, RFFNet, ShapeNet, Siren


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adam:
    kind: Literal["adam"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sgd:
    kind: Literal["sgd"] = "sgd"
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.momentum < 1:
            raise ValueError(f"expected momentum from 0 to below 1 (got {self.momentum})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    steps: int
    rate: float = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    out: Path
    mode: Literal["shared", "random"] = "shared"
    steps: int = 100
    rate: float = 1e-3
    verbose: bool = False
    note: str | None = None
    channels: tuple[float, ...] | None = None
    optimizer: Adam | Sgd = Adam()
    field: FieldConfig = Siren()
    warm_up: Stage | None = None
    stages: tuple[Stage, ...] = ()
    named: dict[str, Adam | Sgd] = dataclasses.field(default_factory=dict)


def build(**keys: Any) -> Work:
    return config_from_mapping(Work, {"out": "runs/x", **keys})


def complaint(**keys: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        build(**keys)
    return str(caught.value)


FULL = Work(
    out=Path("runs/x"),
    mode="random",
    steps=7,
    rate=0.5,
    verbose=True,
    note="ä note",
    channels=(0.1, 0.2),
    optimizer=Sgd(momentum=0.9),
    field=RFFNet(hidden_dim=16, std=0.1, preset="paper"),
    warm_up=Stage(steps=3),
    stages=(Stage(steps=1), Stage(steps=2, rate=0.1)),
    named={"a": Adam(), "b": Sgd()},
)


def test_a_config_survives_the_way_through_plain_data() -> None:
    assert config_from_mapping(Work, config_to_mapping(FULL)) == FULL


def test_a_config_survives_the_way_through_json_text() -> None:
    assert config_from_mapping(Work, json.loads(json.dumps(config_to_mapping(FULL)))) == FULL


def test_plain_data_writes_every_default_out_and_holds_only_json_types() -> None:
    plain = config_to_mapping(Work(out=Path("runs/x"), stages=(Stage(steps=1),)))

    assert plain == {
        "out": "runs/x",
        "mode": "shared",
        "steps": 100,
        "rate": 1e-3,
        "verbose": False,
        "note": None,
        "channels": None,
        "optimizer": {"kind": "adam", "betas": [0.9, 0.999]},
        "field": {
            "kind": "siren",
            "hidden_dim": 32,
            "num_layers": 3,
            "omega_0": 30.0,
            "preset": "fit-a-nef",
        },
        "warm_up": None,
        "stages": [{"steps": 1, "rate": 1e-3}],
        "named": {},
    }


@pytest.mark.parametrize("field", [Siren(), FourierNet(), GaborNet(), RFFNet(), MLP(), ShapeNet()])
def test_every_field_survives_the_way_through_plain_data(field: FieldConfig) -> None:
    assert config_from_mapping(FieldConfig, config_to_mapping(field)) == field


def test_a_bare_string_is_short_for_the_kind_of_a_union() -> None:
    assert build(optimizer="sgd", field="mlp") == build(
        optimizer={"kind": "sgd"}, field={"kind": "mlp"}
    )
    assert build(optimizer="sgd", field="mlp").field == MLP()


def test_a_finished_config_is_taken_as_it_is() -> None:
    assert build(field=MLP(hidden_dim=5)).field == MLP(hidden_dim=5)


def test_an_unknown_key_is_refused_with_the_nearest_one() -> None:
    assert complaint(step=3) == "unknown key 'step'; did you mean 'steps'?"


def test_an_unknown_nested_key_is_named_with_its_path() -> None:
    message = complaint(field={"kind": "siren", "omega": 3})

    assert message == "unknown key 'field.omega'; did you mean 'omega_0'?"


def test_an_unknown_key_without_a_near_one_lists_those_that_exist() -> None:
    assert complaint(warm_up={"steps": 1, "qqqq": 3}) == (
        "unknown key 'warm_up.qqqq'; known keys: steps, rate"
    )


def test_an_unknown_kind_is_refused_with_the_nearest_one() -> None:
    expected = (
        "field.kind: expected one of 'siren', 'fouriernet', 'gabornet', 'rffnet', 'mlp', "
        "'shapenet' (got 'siern'); did you mean 'siren'?"
    )

    assert complaint(field={"kind": "siern"}) == expected
    assert complaint(field="siern") == expected


@pytest.mark.parametrize("kind", [["siren"], 3, None, {"a": 1}])
def test_a_kind_that_is_not_a_string_is_refused(kind: Any) -> None:
    assert complaint(field={"kind": kind}).startswith("field.kind: expected one of 'siren', ")


def test_a_missing_kind_is_named_with_the_alternatives() -> None:
    assert complaint(optimizer={}) == "missing key 'optimizer.kind': one of adam, sgd"


def test_a_key_of_another_alternative_is_unknown() -> None:
    assert complaint(field={"kind": "mlp", "omega_0": 3.0}).startswith(
        "unknown key 'field.omega_0'"
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"steps": "32"}, "steps: input should be a valid integer (got '32')"),
        ({"steps": 1.5}, "steps: input should be a valid integer"),
        ({"steps": True}, "steps: input should be a valid integer (got True)"),
        ({"steps": None}, "steps: input should be a valid integer (got None)"),
        ({"rate": "1"}, "rate: input should be a valid number (got '1')"),
        ({"verbose": 1}, "verbose: input should be a valid boolean (got 1)"),
        ({"note": 3}, "note: input should be a valid string (got 3)"),
        ({"mode": "sharde"}, "mode: input should be 'shared' or 'random' (got 'sharde')"),
        ({"channels": [0.1, "x"]}, "channels.1: input should be a valid number"),
        ({"optimizer": {"kind": "adam", "betas": [0.9]}}, "optimizer.betas.1: field required"),
        ({"field": {"kind": "siren", "hidden_dim": "32"}}, "field.hidden_dim: input should be"),
        ({"optimizer": 3}, "optimizer: expected a table of keys (got 3)"),
        ({"warm_up": "soft"}, "warm_up: expected a table of keys (got 'soft')"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_its_path(
    keys: dict[str, Any], expected: str
) -> None:
    assert complaint(**keys).startswith(expected)


def test_a_whole_number_is_a_valid_float_and_becomes_one() -> None:
    rate = build(rate=1).rate

    assert rate == 1.0
    assert isinstance(rate, float)


def test_a_value_that_is_not_plain_data_is_refused() -> None:
    assert complaint(note={1, 2}) == "note: {1, 2} is not a plain value"


def test_strings_become_paths_and_lists_become_tuples() -> None:
    work = build(channels=[1, 0.5])

    assert work.out == Path("runs/x")
    assert work.channels == (1.0, 0.5)


def test_a_missing_key_is_named_with_its_path() -> None:
    with pytest.raises(ConfigError, match=r"^missing key 'out'$"):
        config_from_mapping(Work, {})
    assert complaint(warm_up={}) == "missing key 'warm_up.steps'"


def test_an_optional_table_may_be_absent_or_null() -> None:
    assert build(warm_up=None).warm_up is None
    assert build(warm_up={"steps": 2}).warm_up == Stage(steps=2)


def test_complaints_of_a_config_itself_carry_the_path() -> None:
    assert complaint(optimizer={"kind": "sgd", "momentum": 2}) == (
        "optimizer: expected momentum from 0 to below 1 (got 2.0)"
    )
    assert complaint(named={"b": {"kind": "sgd", "momentum": 1}}) == (
        "named.b: expected momentum from 0 to below 1 (got 1.0)"
    )
    with pytest.raises(ConfigError, match=r"^expected momentum from 0 to below 1 \(got -1\.0\)$"):
        config_from_mapping(Sgd, {"momentum": -1})


def test_a_list_of_configs_becomes_a_tuple() -> None:
    assert build(stages=[{"steps": 1}, {"steps": 2, "rate": 1}]).stages == (
        Stage(steps=1),
        Stage(steps=2, rate=1.0),
    )


def test_a_table_of_configs_keeps_its_keys_and_kinds() -> None:
    assert build(named={"first": "sgd", "second": {"kind": "adam"}}).named == {
        "first": Sgd(),
        "second": Adam(),
    }


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"stages": [{"steps": 1}, {"step": 2}]}, "unknown key 'stages.1.step'"),
        ({"stages": [{"steps": 1}, {"steps": "2"}]}, "stages.1.steps: input should be a valid"),
        ({"stages": "soft"}, "stages: expected a list (got 'soft')"),
        ({"stages": {"steps": 1}}, "stages: expected a list (got {'steps': 1})"),
        ({"named": {"a": "sdg"}}, "named.a.kind: expected one of 'adam', 'sgd' (got 'sdg')"),
        ({"named": [1]}, "named: expected a table (got [1])"),
    ],
)
def test_complaints_inside_containers_carry_the_position(
    keys: dict[str, Any], expected: str
) -> None:
    assert complaint(**keys).startswith(expected)


def test_overrides_set_nested_values_and_leave_the_mapping_alone() -> None:
    mapping = {"steps": 1, "field": {"kind": "siren", "omega_0": 30.0}}

    changed = apply_overrides(mapping, ["steps=5", "field.omega_0=9", "warm_up.steps=2"])

    assert changed == {
        "steps": 5,
        "field": {"kind": "siren", "omega_0": 9},
        "warm_up": {"steps": 2},
    }
    assert mapping == {"steps": 1, "field": {"kind": "siren", "omega_0": 30.0}}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5", 5),
        ("-1e-3", -1e-3),
        ("true", True),
        ('"5"', "5"),
        ("shared", "shared"),
        ("train[:10%]", "train[:10%]"),
        ("[0.1, 0.2]", [0.1, 0.2]),
        ('{steps = 3, note = "x"}', {"steps": 3, "note": "x"}),
        ("a=b", "a=b"),
        ("", ""),
        ("  spaced out  ", "spaced out"),
    ],
)
def test_an_override_is_a_toml_value_or_else_a_string(text: str, expected: Any) -> None:
    assert apply_overrides({}, [f"a.b={text}"]) == {"a": {"b": expected}}


def test_setting_a_kind_drops_the_keys_of_the_alternative() -> None:
    mapping = {"field": {"kind": "siren", "omega_0": 9.0, "hidden_dim": 8}}

    assert apply_overrides(mapping, ["field.kind=mlp"]) == {"field": "mlp"}
    assert apply_overrides(mapping, ["field=mlp"]) == {"field": "mlp"}
    assert apply_overrides(mapping, ["field.kind=mlp", "field.num_layers=2"]) == {
        "field": {"kind": "mlp", "num_layers": 2}
    }


def test_a_chosen_kind_gives_the_field_with_its_defaults() -> None:
    plain = config_to_mapping(build(field={"kind": "siren", "hidden_dim": 8}))

    work = config_from_mapping(Work, apply_overrides(plain, ["field.kind=rffnet", "field.std=1"]))

    assert work.field == RFFNet(std=1.0)


def test_later_overrides_win() -> None:
    assert apply_overrides({}, ["a=1", "a=2"]) == {"a": 2}


@pytest.mark.parametrize("item", ["steps", "=5", " =5", ""])
def test_a_malformed_override_is_refused_with_an_example(item: str) -> None:
    with pytest.raises(ConfigError, match=r"expected key=value, for example num_steps=500") as got:
        apply_overrides({}, [item])
    assert str(got.value).startswith(f"--set {item!r}: ")


def test_an_override_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^--set 'steps.x=1': 'steps' is a value, not a table$"):
        apply_overrides({"steps": 3}, ["steps.x=1"])


def test_dates_pass_the_overrides_and_are_refused_as_values(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('out = "x"\nnote = 2020-01-01\n')

    mapping = apply_overrides(load_toml(tmp_path / "a.toml"), ["steps=3"])

    with pytest.raises(ConfigError, match=r"^note: .* is not a plain value$"):
        config_from_mapping(Work, mapping)


def test_differing_keys_are_listed_with_dots_in_order() -> None:
    first = {"z": 1, "field": {"kind": "siren", "omega_0": 9.0}, "same": [1, 2]}
    second = {"field": {"kind": "siren", "omega_0": 8.0}, "same": [1, 2], "more": "x"}

    assert differing_keys(first, second) == [
        ("field.omega_0", 9.0, 8.0),
        ("more", None, "x"),
        ("z", 1, None),
    ]
    assert differing_keys(first, first) == []


def test_a_table_differs_from_a_value() -> None:
    assert differing_keys({"a": {"b": 1}}, {"a": 1}) == [("a", None, 1), ("a.b", 1, None)]


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@settings(deadline=None, max_examples=50)
@given(mapping=st.dictionaries(st.text(max_size=4), PLAIN, max_size=4))
def test_the_digest_does_not_depend_on_the_order_of_keys(mapping: dict[str, Any]) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(item) for item in value] if isinstance(value, list) else value

    assert digest(turned(mapping)) == digest(mapping)


def test_the_digest_is_sha256_of_compact_sorted_json_in_utf8() -> None:
    expected = hashlib.sha256('{"a":[1,2.5,null],"b":{"c":"ä","d":true}}'.encode()).hexdigest()

    assert digest({"b": {"d": True, "c": "ä"}, "a": [1, 2.5, None]}) == expected


def test_a_changed_value_changes_the_digest() -> None:
    assert digest({"a": 1, "b": 2}) != digest({"a": 2, "b": 1})


def test_numbers_written_as_int_or_float_give_the_same_digest_once_built() -> None:
    digests = {digest(config_to_mapping(build(rate=rate))) for rate in (1, 1.0)}

    assert len(digests) == 1


def test_toml_files_are_read_as_utf8(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('note = "ä"\n[field]\nkind = "mlp"\n', encoding="utf-8")

    assert load_toml(path) == {"note": "ä", "field": {"kind": "mlp"}}


def test_a_missing_toml_file_is_refused_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "none.toml"

    with pytest.raises(ConfigError) as caught:
        load_toml(path)
    assert str(caught.value) == f"cannot read {path}: No such file or directory"


@pytest.mark.parametrize("content", [b"a = = 1", b"\xff\xfe", b"a = 1\na = 2"])
def test_a_file_that_is_not_toml_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.toml"
    path.write_bytes(content)

    with pytest.raises(ConfigError) as caught:
        load_toml(path)
    assert str(caught.value).startswith(f"{path} is not valid TOML: ")


def test_nearest_suggests_only_what_is_close() -> None:
    assert nearest("num_step", ["num_steps", "seed"]) == "; did you mean 'num_steps'?"
    assert nearest("xyz", ["num_steps", "seed"]) == ""


# Values at dotted keys, and JSON


def test_values_are_set_at_dotted_keys_and_a_kind_drops_its_table() -> None:
    mapping = {"steps": 1, "optimizer": {"kind": "adam", "betas": [0.9, 0.99]}}

    changed = with_values(mapping, {"optimizer.kind": "sgd", "optimizer.momentum": 0.5})

    assert changed == {"steps": 1, "optimizer": {"kind": "sgd", "momentum": 0.5}}
    assert mapping["optimizer"] == {"kind": "adam", "betas": [0.9, 0.99]}


def test_a_value_below_a_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="'steps' is a value, not a table"):
        with_values({"steps": 1}, {"steps.more": 2})


def test_a_json_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": [1, null]}', encoding="utf-8")

    assert load_json(path) == {"a": [1, None]}


@pytest.mark.parametrize(
    ("content", "text"), [("[1]", "expected an object of keys"), ("{", "is not valid JSON")]
)
def test_json_that_is_no_config_is_refused(content: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")

    with pytest.raises(ConfigError, match=text):
        load_json(path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_json(tmp_path / "missing.json")
