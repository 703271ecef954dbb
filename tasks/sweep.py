"""Deleting the queues and subscriptions that event captures and inspections left behind."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from db import marks
from db.session import Sessions
from pipeline.settings import Settings
from tasks.broker import ALIVE_TAG, STALE_AFTER, is_ephemeral
from tasks.queues import aws_client


def sweep(settings: Settings, sessions: Sessions, *, stale_after: timedelta | None = None) -> list[str]:
    """Delete ephemeral queues that nobody polls any more, and the subscriptions of queues that are gone.

    Who polls a queue changes its mark every minute. What the mark says is of no matter, because the clock of
    whoever wrote it may be wrong: a queue is stale when its mark has been the same for ``stale_after`` by the
    database's clock. A queue without a mark (made by another kombu) is left alone. Returns the names of the
    queues deleted.
    """
    limit = stale_after if stale_after is not None else timedelta(seconds=STALE_AFTER)
    sqs, sns = aws_client(settings, "sqs"), aws_client(settings, "sns")
    # Subscriptions first: a queue that is made from now on keeps the one that it is given.
    subscriptions = _subscriptions(sns, settings.queue_prefix)
    urls = _queues(sqs, settings.queue_prefix)
    marked = _marks(sqs, urls)
    with sessions.begin() as session:
        looked = marks.age(session, marks.SWEPT)
        # After an outage of the broker, those who poll need a moment to say so.
        anew = looked is None or looked > limit
        ages = marks.unchanged_since(session, marked, prefix=marks.EPHEMERAL, anew=anew)
        marks.put(session, marks.SWEPT)
    stale = [name for name, age in ages.items() if age > limit]
    for name in stale:
        sqs.delete_queue(QueueUrl=urls[name])
    living = urls.keys() - set(stale)
    for arn, endpoint in subscriptions:
        if endpoint not in living:
            sns.unsubscribe(SubscriptionArn=arn)
    sqs.close()
    sns.close()
    return stale


def stale_queues(settings: Settings, sessions: Sessions) -> list[str]:
    """The queues that the next sweep would delete, as far as the steward has watched them."""
    sqs = aws_client(settings, "sqs")
    marked = _marks(sqs, _queues(sqs, settings.queue_prefix))
    sqs.close()
    with sessions() as session:
        known = {name: (marks.get(session, marks.EPHEMERAL + name), value) for name, value in marked.items()}
        return [
            name
            for name, (mark, value) in known.items()
            if mark is not None
            and mark.value == value
            and (marks.age(session, mark.name) or timedelta(0)) > timedelta(seconds=STALE_AFTER)
        ]


def _queues(sqs: Any, prefix: str) -> dict[str, str]:
    """URLs of the environment's queues by name."""
    # Without a page size SQS tells a thousand, and not that there are more.
    pages = sqs.get_paginator("list_queues").paginate(
        QueueNamePrefix=prefix, PaginationConfig={"PageSize": 1000}
    )
    return {url.rsplit("/", 1)[-1]: url for page in pages for url in page.get("QueueUrls", [])}


def _marks(sqs: Any, urls: dict[str, str]) -> dict[str, str]:
    """The marks of the ephemeral queues that have one."""
    found: dict[str, str] = {}
    for name, url in urls.items():
        if not is_ephemeral(name):
            continue
        try:
            mark = sqs.list_queue_tags(QueueUrl=url).get("Tags", {}).get(ALIVE_TAG)
        except sqs.exceptions.QueueDoesNotExist:
            continue  # its owner was faster
        if mark is not None:
            found[name] = mark
    return found


def _subscriptions(sns: Any, prefix: str) -> list[tuple[str, str]]:
    """(ARN, queue name) of the subscriptions that belong to ephemeral queues of ours, and no others."""
    return [
        (found["SubscriptionArn"], name)
        for page in sns.get_paginator("list_subscriptions").paginate()
        for found in page["Subscriptions"]
        if found["Protocol"] == "sqs" and found["SubscriptionArn"].startswith("arn:")
        if (name := found["Endpoint"].rsplit(":", 1)[-1]).startswith(prefix) and is_ephemeral(name)
    ]
