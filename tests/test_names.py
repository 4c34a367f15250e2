"""Names with arguments: the grammar, its canonical text, and what bad text gets."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from peft_atlas.bench.errors import UsageError
from peft_atlas.bench.names import Name, format_value, parse, parse_one

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
ids = st.from_regex(r"[a-z0-9][a-z0-9./-]{0,12}", fullmatch=True)
keys = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.one_of(st.booleans(), st.none(), st.integers(), finite, st.text(), st.sampled_from(["q+v", "1e5", "True"]))
names = st.builds(Name, ids, st.dictionaries(keys, values, max_size=4))


@unhurried
@given(st.lists(names, min_size=1, max_size=4))
def test_round_trip(original: list[Name]) -> None:
    read = parse(",".join(map(str, original)))
    assert read == original
    for before, after in zip(original, read, strict=True):
        assert dict(before.arguments) == dict(after.arguments)
        assert [type(before.arguments[k]) for k in after.arguments] == [type(v) for v in after.arguments.values()]


@unhurried
@given(st.text(max_size=30))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        read = parse(text)
    except UsageError as error:
        message = str(error)
    else:
        message = "read"
        assert parse(",".join(map(str, read))) == read
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lora", [Name("lora")]),
        ("lora()", [Name("lora")]),
        (" lora , vpt ", [Name("lora"), Name("vpt")]),
        ("lora(r=16, targets=q+v),vpt", [Name("lora", {"r": 16, "targets": "q+v"}), Name("vpt")]),
        ("a(x=1e-3)", [Name("a", {"x": 1e-3})]),
        ("a(x=-.5,y=+2)", [Name("a", {"x": -0.5, "y": 2})]),
        ("a(x=True, y=false, z=NONE)", [Name("a", {"x": True, "y": False, "z": None})]),
        ("a(x='a, b)', y=\"\")", [Name("a", {"x": "a, b)", "y": ""})]),
        ("a(layers=0+1+2)", [Name("a", {"layers": "0+1+2"})]),
        ("reparameterized/low-rank", [Name("reparameterized/low-rank")]),
    ],
)
def test_grammar(text: str, expected: list[Name]) -> None:
    assert parse(text) == expected


def test_canonical_text_sorts_keys_and_tells_types_apart() -> None:
    assert str(parse_one("lora( r = 8 ,alpha=16)")) == "lora(alpha=16, r=8)"
    assert len({Name("a", {"x": value}) for value in (1, 1.0, True, "1", None, "none")}) == 6


def test_several_texts() -> None:
    assert parse(["lora,vpt", "full"]) == [Name("lora"), Name("vpt"), Name("full")]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "a name was expected"),
        ("lora,", "a name was expected"),
        ("lora vpt", "a comma was expected"),
        ("lora(r=8", "',' or ')' was expected"),
        ("lora(r)", "'=' after r"),
        ("lora(=8)", "an argument name"),
        ("lora(r=)", "a value"),
        ("lora(r=8, r=9)", "the argument r is given twice"),
        ("lora(r=8 9)", "',' or ')'"),
        ("lora(r=1e999)", "out of range"),
        ("lora(r=" + "9" * 400 + ")", "out of range"),
        ("lora(r=q+)", "quotes"),
        ("lora(r='x)", "a value"),
    ],
)
def test_what_cannot_be_read(text: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_one_name_only() -> None:
    with pytest.raises(UsageError, match="one name"):
        parse_one("lora,vpt")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_numbers_are_refused(value: float) -> None:
    with pytest.raises(UsageError, match="finite"):
        Name("lora", {"r": value})


def test_format_value_quotes_what_would_read_otherwise() -> None:
    assert [format_value(v) for v in ("q+v", "8", "true", "a b", 'say "x"')] == [
        "q+v", '"8"', '"true"', '"a b"', '"say \\"x\\""',
    ]  # fmt: skip
