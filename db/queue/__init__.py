"""The queue of rows: the only writer of status.

Every function works in the caller's transaction, which should be short: begin, one call, commit. Nothing
here talks to the broker; what a call makes due is published after the commit (``tasks.dispatch``), and by
the steward where that was lost. Every writer locks the job's row first, then queue rows, then the hash.
"""

from db.queue.claim import (
    Answer,
    Claimed,
    Final,
    Leased,
    NotDue,
    Overdue,
    Paused,
    Pending,
    Unknown,
    asset_of,
    claim,
)
from db.queue.control import cancel_job, cancel_row, change_priority, retry_job
from db.queue.due import (
    any_waiting,
    forget_publication,
    overtaken,
    still_wanted,
    take_back,
    unpublished,
    waiting_since,
)
from db.queue.enqueue import active_job_id, due_row, enqueue
from db.queue.finish import GaveUp
from db.queue.held import heartbeat, release_held
from db.queue.lanes import pause_lane, resume_lane
from db.queue.letters import (
    Redriven,
    Resend,
    copying,
    keep_foreign,
    mark_copied,
    purge_letter,
    redrive_letter,
    without_copy,
)
from db.queue.publish import SQS_MAX_DELAY, Ticket, give_back, win_copy, win_ticket, win_tickets
from db.queue.rescue import charge_undelivered, expired, held_tokens, release_expired
from db.queue.settle import Again, Cost, Effect, Fenced, Settled, complete, fail

__all__ = [
    "SQS_MAX_DELAY",
    "Again",
    "Answer",
    "Claimed",
    "Cost",
    "Effect",
    "Fenced",
    "Final",
    "GaveUp",
    "Leased",
    "NotDue",
    "Overdue",
    "Paused",
    "Pending",
    "Redriven",
    "Resend",
    "Settled",
    "Ticket",
    "Unknown",
    "active_job_id",
    "any_waiting",
    "asset_of",
    "cancel_job",
    "cancel_row",
    "change_priority",
    "charge_undelivered",
    "claim",
    "complete",
    "copying",
    "due_row",
    "enqueue",
    "expired",
    "fail",
    "forget_publication",
    "give_back",
    "heartbeat",
    "held_tokens",
    "keep_foreign",
    "mark_copied",
    "overtaken",
    "pause_lane",
    "purge_letter",
    "redrive_letter",
    "release_expired",
    "release_held",
    "resume_lane",
    "retry_job",
    "still_wanted",
    "take_back",
    "unpublished",
    "waiting_since",
    "win_copy",
    "win_ticket",
    "win_tickets",
    "without_copy",
]
