from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.when import Candidate, Captured, DateField, choose

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NOON = "2024:05:06 12:00:00"


def chosen(*candidates: Candidate) -> Captured:
    return choose(candidates, now=NOW)


def test_choose_takes_the_best_field_whatever_the_order_of_arrival() -> None:
    fields = list(DateField)
    for place, field in enumerate(fields):
        dates = [Candidate(one, f"2024-05-06T07:08:{second:02}") for second, one in enumerate(fields[place:])]
        assert chosen(*reversed(dates)).source is field


@pytest.mark.parametrize(
    ("text", "at", "precision"),
    [
        ("2024:02:29 23:59:58", datetime(2024, 2, 29, 23, 59, 58, tzinfo=UTC), "second"),
        ("2024-02-29T23:59:58.25", datetime(2024, 2, 29, 23, 59, 58, 250_000, tzinfo=UTC), "second"),
        ("2024-02-29T23:59", datetime(2024, 2, 29, 23, 59, tzinfo=UTC), "minute"),
        ("2024-02-29", datetime(2024, 2, 29, tzinfo=UTC), "day"),
        ("2024:02:29   :  :  ", datetime(2024, 2, 29, tzinfo=UTC), "day"),
        ("20240229", datetime(2024, 2, 29, tzinfo=UTC), "day"),
        ("2024-02", datetime(2024, 2, 1, tzinfo=UTC), "month"),
        ("1989-00-00", datetime(1989, 1, 1, tzinfo=UTC), "year"),
        ("1826", datetime(1826, 1, 1, tzinfo=UTC), "year"),
        ("1904-01-01", datetime(1904, 1, 1, tzinfo=UTC), "day"),  # somebody dated an old print
    ],
)
def test_date_is_read_as_far_as_it_goes(text: str, at: datetime, precision: str) -> None:
    found = chosen(Candidate(DateField.XMP_ORIGINAL, text))
    assert (found.at, found.precision) == (at, precision)
    assert found.offset is None
    assert found.warnings == ()
    assert found.details().get("captured_at_precision") == (
        None if precision in {"second", "minute"} else precision
    )


@pytest.mark.parametrize(
    "text", ["", "   ", "0000:00:00 00:00:00", "    :  :     :  :  ", "0000-00-00T00:00:00Z"]
)
def test_clock_that_was_never_set_is_no_date_and_no_warning(text: str) -> None:
    assert chosen(Candidate(DateField.EXIF_ORIGINAL, text)) == Captured()


@pytest.mark.parametrize("text", ["1904-01-01T00:00:00.000000Z", "1970-01-01T00:00:00Z"])
def test_zero_of_a_calendar_is_no_date(text: str) -> None:
    assert chosen(Candidate(DateField.CONTAINER_CREATED, text)) == Captured()


@pytest.mark.parametrize(
    "text",
    ["1825:12:31 23:59:59", "2026:11:21 12:00:01", "9999:12:31 23:59:59", "2024:13:01 00:00:00", "soon"],
)
def test_impossible_date_gives_way_to_the_next_and_is_said(text: str) -> None:
    found = chosen(Candidate(DateField.EXIF_ORIGINAL, text), Candidate(DateField.EXIF_CHANGED, NOON))
    assert found.source is DateField.EXIF_CHANGED
    assert len(found.warnings) == 1
    assert text in found.warnings[0]


def test_clock_of_a_zone_ahead_of_ours_is_believed() -> None:
    assert chosen(Candidate(DateField.EXIF_ORIGINAL, "2026:11:21 02:00:00")).at is not None


@pytest.mark.parametrize(
    ("utc", "offset"),
    [
        ("10:00:00", "+02:00"),
        ("10:03:59", "+02:00"),  # the last fix was four minutes after the picture
        ("09:57:00", "+02:00"),
        ("06:30:00", "+05:30"),
        ("06:15:00", "+05:45"),  # Nepal
        ("19:00:00", "-07:00"),
        ("09:45:00", None),  # nobody lives two hours and a quarter ahead
        ("10:07:00", None),
    ],
)
def test_offset_is_what_lies_between_the_clock_and_gps(utc: str, offset: str | None) -> None:
    found = chosen(Candidate(DateField.EXIF_ORIGINAL, NOON), Candidate(DateField.GPS, f"2024:05:06 {utc}"))
    assert found.offset == offset
    assert found.offset_from == (DateField.GPS if offset else None)


def test_offset_across_midnight_and_never_beyond_14_hours() -> None:
    late = Candidate(DateField.EXIF_ORIGINAL, "2024:05:07 01:00:00")
    assert chosen(late, Candidate(DateField.GPS, "2024:05:06 23:00:00")).offset == "+02:00"
    assert chosen(late, Candidate(DateField.GPS, "2024:05:05 23:00:00")).offset is None


def test_offset_is_borrowed_from_the_same_second_only() -> None:
    original = Candidate(DateField.EXIF_ORIGINAL, NOON, fraction="25")
    same = Candidate(DateField.XMP_CREATED, "2024-05-06T12:00:00+09:00")
    other = Candidate(DateField.PHOTOSHOP_CREATED, "2024-05-06T12:00:01-05:00")
    found = chosen(original, same, other)
    tokyo = timezone(timedelta(hours=9))
    assert found.at == datetime(2024, 5, 6, 12, 0, 0, 250_000, tokyo)
    assert found.details() == {
        "captured_from": "DateTimeOriginal",
        "captured_at_offset": "+09:00",
        "captured_at_offset_from": "xmp:CreateDate",
    }


@pytest.mark.parametrize("field", [DateField.XMP_CREATED, DateField.CONTAINER_CREATED])
def test_utc_is_never_borrowed(field: DateField) -> None:
    zulu = Candidate(field, "2024-05-06T12:00:00Z")
    assert chosen(Candidate(DateField.EXIF_ORIGINAL, NOON), zulu).offset is None


def test_offset_in_the_text_wins_over_the_one_beside_it() -> None:
    found = chosen(Candidate(DateField.QUICKTIME_CREATED, "2024-05-06T12:00:00+0200", offset="-05:00"))
    assert found.offset == "+02:00"


@given(
    st.lists(st.builds(Candidate, st.sampled_from(DateField), st.text(), st.none() | st.text(), st.text()))
)
def test_no_text_whatever_fails(candidates: list[Candidate]) -> None:
    found = choose(candidates)
    assert (found.at is None) == (found.source is None)


@given(st.timedeltas(timedelta(0), timedelta(days=200 * 365)), st.integers(-14 * 60, 14 * 60))
def test_any_moment_survives_its_writing(since: timedelta, minutes: int) -> None:
    zone = timezone(timedelta(minutes=minutes))
    at = datetime(1826, 1, 1, tzinfo=zone) + since
    found = chosen(Candidate(DateField.XMP_ORIGINAL, at.isoformat()))
    clock_not_set = at in {datetime(1904, 1, 1, tzinfo=zone), datetime(1970, 1, 1, tzinfo=zone)}
    assert found.at == (None if clock_not_set else at)
