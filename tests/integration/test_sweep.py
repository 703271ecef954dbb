"""Queues and subscriptions that captures and inspections leave, on real SQS and SNS."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from db import marks
from db.session import Sessions
from pipeline.queues import LANES, Queue
from pipeline.settings import Settings
from tasks.broker import ALIVE_TAG, is_ephemeral
from tasks.queues import aws_client, sqs_name
from tasks.sweep import stale_queues, sweep
from tests.factories import now

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient

LONG = timedelta(minutes=11)


@pytest.fixture
def sns(aws: Settings) -> Iterator[Any]:
    client = aws_client(aws, "sns")
    yield client
    client.close()


@pytest.fixture
def place(aws: Settings) -> Settings:
    """An environment of this module's own."""
    return aws.model_copy(update={"queue_prefix": f"swept-{aws.queue_prefix}"})


def _queue(sqs: SQSClient, sns: Any, topic: str, name: str, tags: dict[str, str]) -> str:
    url = sqs.create_queue(QueueName=name, tags=tags)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    return url


def _topic(sns: Any, settings: Settings) -> str:
    topic: str = sns.create_topic(Name=f"{settings.queue_prefix}celeryev")["TopicArn"]
    return topic


def _there(sqs: SQSClient, settings: Settings) -> set[str]:
    urls = sqs.list_queues(QueueNamePrefix=settings.queue_prefix).get("QueueUrls", [])
    return {url.rsplit("/", 1)[-1] for url in urls}


def _subscribed(sns: Any, settings: Settings) -> set[str]:
    pages = sns.get_paginator("list_subscriptions").paginate()
    names = {one["Endpoint"].rsplit(":", 1)[-1] for page in pages for one in page["Subscriptions"]}
    return {name for name in names if name.startswith(settings.queue_prefix)}


def _let_time_pass(sessions: Sessions) -> None:
    """As if the marks that are known had been seen eleven minutes ago, and the last sweep a minute ago."""
    with sessions.begin() as session:
        for name in _watched(sessions):
            mark = marks.get(session, name)
            assert mark is not None
            marks.put(session, name, mark.value, at=mark.at - LONG)
        marks.put(session, marks.SWEPT, at=now() - timedelta(minutes=1))


def _watched(sessions: Sessions) -> list[str]:
    from sqlalchemy import select

    from db.models import StewardMark

    with sessions() as session:
        found = session.scalars(select(StewardMark.name).where(StewardMark.name.startswith(marks.EPHEMERAL)))
        return list(found)


def test_queue_that_nobody_marks_any_more_is_swept_with_its_subscription(
    place: Settings, sqs: SQSClient, sns: Any, sessions: Sessions
) -> None:
    topic = _topic(sns, place)
    living, dead = f"{place.queue_prefix}celeryev-living", f"{place.queue_prefix}x-celery-pidbox"
    foreign = f"{place.queue_prefix}celeryev-of-another-kombu"
    url = _queue(sqs, sns, topic, living, {ALIVE_TAG: "1"})
    _queue(sqs, sns, topic, dead, {ALIVE_TAG: "1"})
    _queue(sqs, sns, topic, foreign, {})

    assert sweep(place, sessions) == []
    _let_time_pass(sessions)
    sqs.tag_queue(QueueUrl=url, Tags={ALIVE_TAG: "2"})
    assert stale_queues(place, sessions) == [dead]
    assert sweep(place, sessions) == [dead]

    assert _there(sqs, place) == {living, foreign}
    assert _subscribed(sns, place) == {living, foreign}
    assert sweep(place, sessions) == []
    assert _watched(sessions) == [marks.EPHEMERAL + living]


def test_clock_of_whoever_polls_is_of_no_matter(
    place: Settings, sqs: SQSClient, sns: Any, sessions: Sessions
) -> None:
    """One is an hour behind, one an hour ahead; both poll, and then both stop."""
    topic, hour = _topic(sns, place), 3600
    marked = {
        f"{place.queue_prefix}celeryev-{name}": int(now().timestamp()) + shift
        for name, shift in (("behind", -hour), ("ahead", hour))
    }
    urls = {name: _queue(sqs, sns, topic, name, {ALIVE_TAG: str(moment)}) for name, moment in marked.items()}
    for minute in range(1, 4):
        assert not set(sweep(place, sessions)) & set(marked)
        _let_time_pass(sessions)
        for name, moment in marked.items():
            sqs.tag_queue(QueueUrl=urls[name], Tags={ALIVE_TAG: str(moment + 60 * minute)})
    assert not set(sweep(place, sessions)) & set(marked)
    _let_time_pass(sessions)
    assert set(sweep(place, sessions)) >= set(marked)


def test_after_an_outage_those_who_poll_get_time_to_say_so(
    place: Settings, sqs: SQSClient, sns: Any, sessions: Sessions
) -> None:
    name = f"{place.queue_prefix}celeryev-patient"
    _queue(sqs, sns, _topic(sns, place), name, {ALIVE_TAG: "1"})
    sweep(place, sessions)
    _let_time_pass(sessions)
    with sessions.begin() as session:
        marks.put(session, marks.SWEPT, at=now() - timedelta(hours=1))
    assert name not in sweep(place, sessions)
    _let_time_pass(sessions)
    assert name in sweep(place, sessions)


def test_sweep_leaves_our_own_queues_and_other_peoples_subscriptions(
    aws: Settings, sqs: SQSClient, sns: Any, sessions: Sessions
) -> None:
    alarms = sns.create_topic(Name=f"{aws.queue_prefix}alarms")["TopicArn"]
    sns.subscribe(TopicArn=alarms, Protocol="email", Endpoint="operator@example.com")
    sns.subscribe(TopicArn=alarms, Protocol="sqs", Endpoint="arn:aws:sqs:us-east-1:111111111111:pager")
    for lane in Queue:
        url = sqs.get_queue_url(QueueName=sqs_name(aws, lane))["QueueUrl"]
        sqs.tag_queue(QueueUrl=url, Tags={ALIVE_TAG: "1"})  # whatever is written on them

    sweep(aws, sessions)
    _let_time_pass(sessions)
    assert not set(sweep(aws, sessions)) & {sqs_name(aws, lane) for lane in Queue}

    for lane in LANES:
        assert sqs.get_queue_url(QueueName=sqs_name(aws, lane))["QueueUrl"]
    left = sns.list_subscriptions_by_topic(TopicArn=alarms)["Subscriptions"]
    assert {one["Protocol"] for one in left} == {"email", "sqs"}
    sns.delete_topic(TopicArn=alarms)


def test_sweep_of_one_environment_leaves_the_others(
    aws: Settings, place: Settings, sqs: SQSClient, sns: Any, sessions: Sessions
) -> None:
    name = f"{place.queue_prefix}celeryev-theirs"
    _queue(sqs, sns, _topic(sns, place), name, {ALIVE_TAG: "1"})
    assert is_ephemeral(name)
    for _ in range(2):
        assert name not in sweep(aws, sessions)
        _let_time_pass(sessions)
    assert name in _subscribed(sns, place)
    sweep(place, sessions)
    _let_time_pass(sessions)
    assert name in sweep(place, sessions)
