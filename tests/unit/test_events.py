from __future__ import annotations

import json
from contextlib import suppress
from functools import cmp_to_key
from typing import Any
from urllib.parse import quote_plus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import NotOursError
from pipeline.events import Change, ObjectEvent, parse, precedes

KEY_BYTES = 1024  # S3's limit
keys = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=400).filter(
    lambda key: len(key.encode()) <= KEY_BYTES
)
sequencers = st.text("0123456789ABCDEF", min_size=1, max_size=20)
ODD_KEYS = (
    "uploads/a b.jpg",
    "uploads/a+b.jpg",
    "uploads/100%.jpg",
    "uploads/%20literally.jpg",
    "uploads/été à la mer/baie + ville.jpg",
    "uploads/e\u0301te\u0301.jpg",  # decomposed, and kept so
    "uploads/🎬.mov",
    "x" * KEY_BYTES,
    " ",
    "&=?#/\\\"'<>",
)


def notification(key: str, **record: Any) -> dict[str, Any]:
    """One record as S3 sends it: the key URL-encoded, a space as a plus sign."""
    given_object = record.pop("object", {})
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "eventName": "ObjectCreated:Put",
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": "footage", "arn": "arn:aws:s3:::footage"},
            "object": {"key": quote_plus(key, safe="/"), "size": 9, "eTag": "e1", "sequencer": "0055"}
            | given_object,
        },
        **record,
    }


def bridge(key: str, **event: Any) -> dict[str, Any]:
    """The same change as EventBridge sends it: the key as it is."""
    given_object, deletion = event.pop("object", {}), event.pop("deletion", {})
    return {
        "version": "0",
        "source": "aws.s3",
        "detail-type": "Object Created",
        "detail": {
            "version": "0",
            "bucket": {"name": "footage"},
            "object": {"key": key, "size": 9, "etag": "e1", "sequencer": "0055"} | given_object,
            **deletion,
        },
        **event,
    }


def records(*found: dict[str, Any]) -> str:
    return json.dumps({"Records": found})


@given(keys)
@example(ODD_KEYS[0])
@example(ODD_KEYS[1])
@example(ODD_KEYS[2])
@example(ODD_KEYS[3])
@example(ODD_KEYS[4])
@example(ODD_KEYS[5])
@example(ODD_KEYS[6])
@example(ODD_KEYS[7])
@example(ODD_KEYS[8])
@example(ODD_KEYS[9])
def test_key_comes_through_both_shapes_byte_for_byte(key: str) -> None:
    expected = [
        ObjectEvent(change=Change.CREATED, bucket="footage", key=key, size=9, etag="e1", sequencer="0055")
    ]
    assert parse(records(notification(key))) == expected
    assert parse(json.dumps(bridge(key), ensure_ascii=False)) == expected


def test_message_may_tell_of_several_changes_in_order() -> None:
    told = parse(records(notification("a"), notification("b", eventName="ObjectRemoved:Delete")))
    assert [(event.key, event.change) for event in told] == [("a", Change.CREATED), ("b", Change.REMOVED)]


@pytest.mark.parametrize("prefix", ["", "s3:"])
@pytest.mark.parametrize(
    ("name", "change", "marker"),
    [
        ("ObjectCreated:Put", Change.CREATED, False),
        ("ObjectCreated:CompleteMultipartUpload", Change.CREATED, False),
        ("ObjectRemoved:Delete", Change.REMOVED, False),
        ("ObjectRemoved:DeleteMarkerCreated", Change.REMOVED, True),
    ],
)
def test_event_name_says_what_happened(prefix: str, name: str, change: Change, *, marker: bool) -> None:
    (event,) = parse(records(notification("a", eventName=prefix + name)))
    assert (event.change, event.marker) == (change, marker)


@pytest.mark.parametrize(
    ("kind", "deletion", "change", "marker"),
    [
        ("Object Created", {}, Change.CREATED, False),
        ("Object Deleted", {"deletion-type": "Permanently Deleted"}, Change.REMOVED, False),
        ("Object Deleted", {"deletion-type": "Delete Marker Created"}, Change.REMOVED, True),
    ],
)
def test_detail_type_says_what_happened(
    kind: str, deletion: dict[str, str], change: Change, *, marker: bool
) -> None:
    (event,) = parse(json.dumps(bridge("a", **{"detail-type": kind}, deletion=deletion)))
    assert (event.change, event.marker) == (change, marker)


@pytest.mark.parametrize(("told", "version"), [("v7", "v7"), ("null", ""), (None, "")])
def test_version_is_empty_where_the_bucket_has_none(told: str | None, version: str) -> None:
    (event,) = parse(records(notification("a", object={"versionId": told})))
    (other,) = parse(json.dumps(bridge("a", object={"version-id": told})))
    assert event.version_id == other.version_id == version


def test_removal_without_size_and_etag_is_understood() -> None:
    record = notification("a", eventName="ObjectRemoved:Delete")
    del record["s3"]["object"]["size"], record["s3"]["object"]["eTag"]
    (event,) = parse(records(record))
    assert (event.size, event.etag) == (None, None)


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "footage"}),
        records(),
        records(notification("a", eventName="ObjectTagging:Put")),
        json.dumps(bridge("a", **{"detail-type": "Object Restore Completed"})),
    ],
)
def test_message_that_changes_no_bytes_is_ours_and_says_nothing(body: str) -> None:
    assert parse(body) == []


@pytest.mark.parametrize(
    "body",
    [
        "",
        "null",
        "[]",
        "7",
        '"Records"',
        "{}",
        "{",
        "\0",
        "\ud800",
        '{"Records": 7}',
        '{"Records": [{}]}',
        '{"Records": [{"eventSource": "aws:ses"}]}',
        '{"source": "aws.ec2", "detail": {}}',
        '{"source": "aws.s3", "detail-type": "Object Created"}',
        '{"source": "aws.s3", "detail-type": "Object Created", "detail": {"object": {"key": "a"}}}',
        "[" * 100_000,
        '{"Records": ' + "[" * 100_000,
        records(notification("")),
        records(notification("a", object={"key": 7})),
        records(notification("a", object={"key": ["a"]})),
        records(notification("a", object={"size": "nine"})),
        # What no object can have, and no column can hold.
        records(notification("a", object={"size": -1})),
        records(notification("a", object={"size": 2**63})),
        records(notification("a\0b")),
        records(notification("a", object={"eTag": "\0"})),
        records(notification("a", object={"versionId": "\0"})),
        records(notification("a", object={"sequencer": "\0"})),
        records(notification("x" * (KEY_BYTES + 1))),
        json.dumps(bridge("a\0b")),
        json.dumps(bridge("\ud800")),
    ],
)
def test_message_that_is_no_object_event_is_refused_with_a_reason(body: str) -> None:
    with pytest.raises(NotOursError) as caught:
        parse(body)
    assert caught.value.message.startswith("Not an S3 event: ")


NAMES = (
    *("Records", "Event", "source", "detail", "detail-type", "eventSource", "eventName", "s3"),
    *("bucket", "object", "key", "name", "size", "sequencer", "versionId"),
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES) | st.text(max_size=5),
            inner | st.sampled_from(["aws:s3", "aws.s3", "Object Created", "ObjectCreated:Put"]),
            max_size=5,
        )
    ),
    max_leaves=20,
)


@given(st.text(st.characters(), max_size=200) | anything.map(json.dumps))
def test_garbage_raises_nothing_but_not_ours(body: str) -> None:
    told: list[ObjectEvent] = []
    with suppress(NotOursError):
        told = parse(body)
    assert all(0 < len(event.key.encode()) <= KEY_BYTES for event in told)


@given(sequencers, sequencers)
def test_of_two_sequencers_at_most_one_is_older(one: str, other: str) -> None:
    assert not (precedes(one, other) and precedes(other, one))
    equal = one.rstrip("0") == other.rstrip("0")
    assert (precedes(one, other) or precedes(other, one)) is not equal


@given(st.lists(sequencers, min_size=3, max_size=8))
def test_sequencers_are_in_one_order(found: list[str]) -> None:
    def compare(one: str, other: str) -> int:
        return precedes(other, one) - precedes(one, other)

    ordered = sorted(found, key=cmp_to_key(compare))
    pairs = [(one, other) for place, one in enumerate(ordered) for other in ordered[place:]]
    assert not [pair for pair in pairs if precedes(pair[1], pair[0])]


@given(sequencers, sequencers)
def test_sequencer_is_compared_without_regard_to_case(one: str, other: str) -> None:
    assert precedes(one.lower(), other) == precedes(one, other.lower()) == precedes(one, other)


@pytest.mark.parametrize(
    ("older", "newer"),
    [("0055AED6DCD90281E5", "0055AED6DCD90281E6"), ("00", "1"), ("0A", "1"), ("0055", "00551")],
)
def test_shorter_sequencer_is_padded_on_the_right(older: str, newer: str) -> None:
    assert precedes(older, newer)
    assert not precedes(newer, older)


@given(sequencers)
def test_empty_sequencer_says_nothing(one: str) -> None:
    assert not precedes("", one)
    assert not precedes(one, "")
