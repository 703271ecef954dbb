"""Every error raised on purpose.

DailiesError
├── ConfigurationError            a setting is missing or contradicts another
├── NotFoundError                 the thing asked for does not exist
├── ConflictError                 the thing exists and is in another state than the request needs
│   └── IllegalTransitionError    a status may not follow another (pipeline.states)
├── InvalidRequestError           the request cannot be understood; says which field
├── NotOursError                  a message that is no work of ours; says why
└── StageError                    a stage could not do its work
    ├── PermanentStageError       bad input: the same bytes fail alike, never retried
    │   └── NoPictureError        the file is sound, and there is nothing to see in it
    ├── TransientStageError       may go better next time: retried by pipeline.retry, costs an attempt
    │   └── ObjectMissingError    S3 says that there is no such object
    └── InfrastructureError       database, broker or store not answering: retried, costs no attempt

Every one has a stable ``code`` in capitals, for machines, and a sentence that says what is wrong
and what to do.
"""

from __future__ import annotations

import errno


class DailiesError(Exception):
    """Root of the tree. ``code`` is stable and machine-readable, ``str(error)`` is for people."""

    code = "INTERNAL_ERROR"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        if code is not None:
            self.code = code

    @property
    def message(self) -> str:
        """The sentence for people."""
        return str(self)

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with every field: Celery carries errors from pool children to their parent."""
        return (_rebuild, (type(self), str(self), self.__dict__))


def _rebuild(cls: type[DailiesError], message: str, fields: dict[str, object]) -> DailiesError:
    error = cls.__new__(cls, message)
    error.__dict__.update(fields)
    return error


class ConfigurationError(DailiesError):
    """A setting is missing or contradicts another."""

    code = "CONFIGURATION_ERROR"


class NotFoundError(DailiesError):
    """The thing asked for does not exist."""

    code = "NOT_FOUND"


class ConflictError(DailiesError):
    """The thing exists and is in another state than the request needs."""

    code = "CONFLICT"


class IllegalTransitionError(ConflictError):
    """A status may not follow another."""

    code = "ILLEGAL_TRANSITION"


class InvalidRequestError(DailiesError):
    """The request cannot be understood. ``field`` names the part that is wrong, where there is one."""

    code = "VALIDATION_ERROR"

    def __init__(self, message: str, *, code: str | None = None, field: str | None = None) -> None:
        super().__init__(message, code=code)
        self.field = field


class NotOursError(DailiesError):
    """A message that is no work of ours."""

    code = "NOT_OURS"


class StageError(DailiesError):
    """A stage could not do its work."""

    code = "STAGE_FAILED"


class PermanentStageError(StageError):
    """Bad input: the same bytes fail alike, so it is never retried."""

    code = "BAD_INPUT"


class NoPictureError(PermanentStageError):
    """The file is sound, and there is nothing to see in it: no stage fails for it."""

    code = "NO_PICTURE"


class TransientStageError(StageError):
    """May go better next time: retried by the retry policy, costs an attempt."""

    code = "STAGE_FAILED"


class ObjectMissingError(TransientStageError):
    """S3 says that there is no such object: deleted, never uploaded, or denied for a moment."""

    code = "OBJECT_MISSING"


class InfrastructureError(StageError):
    """Database, broker or object store not answering: retried with a capped backoff, costs no attempt."""

    code = "INFRASTRUCTURE_UNAVAILABLE"


#: What the machine does to a reader; any other number is what a file's own claims lead to.
_OF_THE_MACHINE = frozenset(
    {errno.EIO, errno.ESTALE, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE}
)


def is_the_machines(error: OSError) -> bool:
    """Whether reading failed because of this machine, not of what is in the file."""
    return error.errno in _OF_THE_MACHINE


def disk_is_full(error: OSError) -> InfrastructureError | None:
    """What to say of ``error`` where it means that this machine's disk is full; None where it means other."""
    if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
        return None
    return InfrastructureError(
        "This machine's disk is full; free some. Nothing fails for it.", code="SPOOL_FULL"
    )
