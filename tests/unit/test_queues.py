from __future__ import annotations

from itertools import chain

import pytest

from pipeline.errors import InvalidRequestError
from pipeline.queues import LANES, Queue, lane_for
from pipeline.settings import Settings
from pipeline.workflows import PRIORITY_MAX, PRIORITY_MIN, STAGES_OF, StageName, WorkflowType, stages_of
from tasks.queues import REDRIVE, WORKERS, kombu_queues, sqs_name


@pytest.mark.parametrize("priority", range(PRIORITY_MIN, PRIORITY_MAX + 1))
def test_lane_of_a_priority_is_that_of_the_design(priority: int) -> None:
    expected = Queue.EXPRESS if priority >= 8 else Queue.STANDARD if priority >= 4 else Queue.BULK
    assert lane_for(priority) == expected


@pytest.mark.parametrize("priority", [-1, 0, 11, 1_000])
def test_lane_of_a_priority_out_of_range_is_refused_with_the_field(priority: int) -> None:
    with pytest.raises(InvalidRequestError, match="between 1 and 10") as caught:
        lane_for(priority)
    assert caught.value.field == "priority"


def test_every_lane_has_exactly_one_worker_role() -> None:
    assert sorted(chain.from_iterable(WORKERS.values())) == sorted(LANES)


def test_lanes_of_the_main_worker_go_from_urgent_to_patient() -> None:
    assert WORKERS["worker"] == (Queue.EXPRESS, Queue.STANDARD, Queue.BULK)


def test_every_queue_but_the_dead_letter_queues_has_one() -> None:
    dead = {Queue.DEAD_LETTER, Queue.EVENTS_DEAD_LETTER}
    assert set(REDRIVE) == set(Queue) - dead
    assert set(REDRIVE.values()) == dead


def test_celery_declares_the_lanes_and_nothing_else() -> None:
    assert [(queue.name, queue.exchange.type) for queue in kombu_queues()] == [
        (lane, "direct") for lane in LANES
    ]


def test_name_on_sqs_is_prefixed_by_the_environment() -> None:
    assert sqs_name(Settings(queue_prefix="dailies-prod-"), Queue.DEAD_LETTER) == "dailies-prod-dead-letter"


@pytest.mark.parametrize("workflow", WorkflowType)
def test_workflow_has_stages_and_ends_with_the_audit(workflow: WorkflowType) -> None:
    stages = stages_of(workflow)
    assert stages == STAGES_OF[workflow]
    assert len(set(stages)) == len(stages)
    assert stages[-1] == StageName.AUDIT


def test_upload_goes_through_the_six_stages_in_order() -> None:
    assert stages_of("ingest") == tuple(StageName)


def test_workflow_that_is_none_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(InvalidRequestError, match="ingest, thumbnails, reindex") as caught:
        stages_of("transcribe")
    assert caught.value.field == "workflow_type"
