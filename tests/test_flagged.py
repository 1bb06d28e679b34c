"""Changed flags: what is taken is what has to be reported, no more and no less."""

from hypothesis import given
from hypothesis import strategies as st

from telemetry.fields import EXACT, Deadband, Field, Member, ObjectList, Owner, Scalar, Value, differs
from telemetry.flagged import FlaggedValues

BAND = Deadband(absolute=2.0, relative=0.1)


def _number(name: str, deadband: Deadband = EXACT) -> Field:
    return Field(name=name, type=Scalar.NUMBER, owner=Owner.HARDWARE, english="", chinese="", deadband=deadband)


def _values(*fields: Field) -> FlaggedValues:
    return FlaggedValues({field.name: field for field in fields})


def test_a_first_value_is_taken_once() -> None:
    values = _values(_number("a"))
    values.update({"a": 0})
    assert values.take().values == {"a": 0}
    values.update({"a": 0})
    assert not values.changed


@given(st.lists(st.floats(-1000, 1000), min_size=1))
def test_the_reader_is_never_further_off_than_the_deadband(samples: list[float]) -> None:
    values = _values(_number("a", BAND))
    held: dict[str, Value] = {}
    for sample in samples:
        values.update({"a": sample})
        held.update(values.take().values)
        reader = held["a"]
        assert isinstance(reader, float)
        assert abs(sample - reader) <= max(BAND.absolute, BAND.relative * abs(reader))


@given(
    st.lists(st.tuples(st.floats(-1000, 1000), st.floats(0, 100), st.booleans(), st.booleans()), min_size=1),
)
def test_a_deadband_that_is_replaced_holds_for_what_is_not_taken_yet(
    steps: list[tuple[float, float, bool, bool]],
) -> None:
    values = _values(_number("a", BAND))
    held: dict[str, Value] = {}
    for sample, band, is_replaced_first, is_taken in steps:
        if is_replaced_first:
            values.replace_deadbands({"a": Deadband(absolute=band)})
            values.update({"a": sample})
        else:
            values.update({"a": sample})
            values.replace_deadbands({"a": Deadband(absolute=band)})
        is_due = "a" not in held or abs(sample - float(str(held["a"]))) > band
        assert values.changed == is_due
        if is_taken:
            held.update(values.take().values)


def test_slow_drift_is_reported_though_no_step_exceeds_the_deadband() -> None:
    values = _values(_number("a", Deadband(absolute=2.0)))
    values.update({"a": 10.0})
    values.take()
    for sample in (11.0, 12.0):
        values.update({"a": sample})
        assert not values.changed
    values.update({"a": 12.5})
    assert values.take().values == {"a": 12.5}


def test_a_value_that_came_back_before_the_push_is_not_reported() -> None:
    values = _values(_number("a"))
    values.update({"a": 1})
    values.take()
    values.update({"a": 2})
    values.update({"a": 1})
    assert not values.changed


def test_a_field_that_cannot_be_read_is_gone_once_and_comes_back() -> None:
    values = _values(_number("a"))
    values.lose(["a"])
    assert not values.changed
    values.update({"a": 1})
    values.take()
    values.lose(["a"])
    values.lose(["a"])
    assert values.take() == ({}, ("a",))
    assert dict(values.taken) == {}
    values.update({"a": 1})
    assert values.take().values == {"a": 1}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.one_of(st.none(), st.integers(0, 3)), st.booleans())))
def test_whoever_applies_what_is_taken_holds_what_was_sampled(steps: list[tuple[str, int | None, bool]]) -> None:
    values = _values(*(_number(name) for name in "abc"))
    sampled: dict[str, Value] = {}
    held: dict[str, Value] = {}
    for name, value, push in steps:
        if value is None:
            sampled.pop(name, None)
            values.lose([name])
        else:
            sampled[name] = value
            values.update({name: value})
        if push:
            taken = values.take()
            held.update(taken.values)
            for gone in taken.gone:
                del held[gone]
            assert held == sampled == dict(values.taken)


CARDS = ObjectList(
    members=(
        Member(name="index", type=Scalar.INTEGER, english="", chinese=""),
        Member(
            name="temper", type=Scalar.INTEGER, english="", chinese="", deadband=Deadband(absolute=2), optional=True
        ),
    )
)


def test_a_list_differs_when_an_element_leaves_its_members_deadband() -> None:
    sent: Value = [{"index": 0, "temper": 50}]
    assert not differs(CARDS, EXACT, sent, [{"index": 0, "temper": 52}])
    assert differs(CARDS, EXACT, sent, [{"index": 0, "temper": 53}])
    assert differs(CARDS, EXACT, sent, [{"index": 1, "temper": 50}])
    assert differs(CARDS, EXACT, sent, [{"index": 0}])
    assert differs(CARDS, EXACT, sent, [])


def test_false_and_zero_are_different_values_of_different_fields_only() -> None:
    assert differs(Scalar.BOOLEAN, EXACT, True, False)
    assert not differs(Scalar.NUMBER, EXACT, 0, 0.0)
