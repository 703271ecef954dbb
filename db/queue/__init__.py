"""The queue of rows: the only writer of status.

Every function works in the caller's transaction, which should be short: begin, one call, commit. Nothing
here talks to the broker; what a call makes due is published after the commit (``tasks.dispatch``), and by
the steward where that was lost. Every writer locks the job's row first, then queue rows, then the hash.
"""

from db.queue.claim import (
    Answer,
    Claimed,
    Exhausted,
    Final,
    Leased,
    NotDue,
    Paused,
    Pending,
    Unknown,
    asset_of,
    claim,
)
from db.queue.control import cancel_job, cancel_row, pause_lane, resume_lane, retry_job
from db.queue.enqueue import active_job_id, due_row, enqueue
from db.queue.letters import keep_foreign, mark_copied, without_copy
from db.queue.publish import SQS_MAX_DELAY, Ticket, give_back, win_copy, win_ticket
from db.queue.rescue import expired, release_expired, unpublished, waiting_since
from db.queue.settle import Again, Cost, Effect, Fenced, GaveUp, Settled, complete, fail

__all__ = [
    "SQS_MAX_DELAY",
    "Again",
    "Answer",
    "Claimed",
    "Cost",
    "Effect",
    "Exhausted",
    "Fenced",
    "Final",
    "GaveUp",
    "Leased",
    "NotDue",
    "Paused",
    "Pending",
    "Settled",
    "Ticket",
    "Unknown",
    "active_job_id",
    "asset_of",
    "cancel_job",
    "cancel_row",
    "claim",
    "complete",
    "due_row",
    "enqueue",
    "expired",
    "fail",
    "give_back",
    "keep_foreign",
    "mark_copied",
    "pause_lane",
    "release_expired",
    "resume_lane",
    "retry_job",
    "unpublished",
    "waiting_since",
    "win_copy",
    "win_ticket",
    "without_copy",
]
