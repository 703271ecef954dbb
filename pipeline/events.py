"""S3's events, in the shapes that S3 itself and EventBridge send them.

S3 notification: ``{"Records": [...]}``, keys URL-encoded with ``+`` for a space
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html).
EventBridge: ``{"source": "aws.s3", "detail": {...}}``, keys as they are.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal
from urllib.parse import unquote_plus

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from pipeline.errors import NotOursError
from pipeline.keys import MAX_KEY_BYTES


class Change(StrEnum):
    """What happened to an object."""

    CREATED = "created"
    REMOVED = "removed"


class ObjectEvent(BaseModel):
    """One change of one object version."""

    model_config = ConfigDict(frozen=True)

    change: Change
    bucket: str
    key: str
    version_id: str = ""  #: empty: the bucket is not versioned
    size: int | None = None
    etag: str | None = None
    sequencer: str = ""
    marker: bool = False  #: a delete marker was left: the key's newest version is meant


def precedes(one: str, other: str) -> bool:
    """Whether sequencer ``one`` is older than ``other``.

    Sequencers of one key are hexadecimal numbers of unequal length; the shorter is padded on the right with
    zeros. An empty one says nothing, and is older than none.
    """
    if not one or not other:
        return False
    width = max(len(one), len(other))
    return one.upper().ljust(width, "0") < other.upper().ljust(width, "0")


def parse(body: str) -> list[ObjectEvent]:
    """The changes that a message tells of; none for S3's test event.

    Raises NotOursError for a message that is no event of an object.
    """
    try:
        return _Message.model_validate_json(body).changes()
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NotOursError(
            f"Not an S3 event: {first['msg'].lower()}{f' at {where}' if where else ''}. "
            "Look at what else sends to the events queue."
        ) from None


def _is_a_key(key: str) -> str:
    if not 0 < len(key.encode()) <= MAX_KEY_BYTES:
        msg = f"a key has 1 to {MAX_KEY_BYTES} bytes"
        raise ValueError(msg)
    return key


#: What PostgreSQL's text can hold: every character but NUL.
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
Key = Annotated[Text, AfterValidator(_is_a_key)]
Size = Annotated[int, Field(ge=0, lt=2**63)]


class _Bucket(BaseModel):
    name: Annotated[Text, Field(min_length=1)]


class _S3Object(BaseModel):
    key: Annotated[Key, BeforeValidator(lambda key: unquote_plus(key) if isinstance(key, str) else key)]
    size: Size | None = None
    etag: Text | None = Field(None, alias="eTag")
    version_id: Text | None = Field(None, alias="versionId")
    sequencer: Text = ""


class _S3Part(BaseModel):
    bucket: _Bucket
    object: _S3Object


class _Record(BaseModel):
    event_source: Literal["aws:s3", "minio:s3"] = Field(alias="eventSource")
    event_name: str = Field(alias="eventName")
    s3: _S3Part

    def change(self) -> ObjectEvent | None:
        name = self.event_name.removeprefix("s3:")
        if not name.startswith(("ObjectCreated:", "ObjectRemoved:")):
            return None  # tagging, restore, replication: nothing that changes what the bytes are
        found = self.s3.object
        return ObjectEvent(
            change=Change.CREATED if name.startswith("ObjectCreated:") else Change.REMOVED,
            bucket=self.s3.bucket.name,
            key=found.key,
            version_id=_version(found.version_id),
            size=found.size,
            etag=found.etag,
            sequencer=found.sequencer,
            marker=name == "ObjectRemoved:DeleteMarkerCreated",
        )


class _BridgeObject(BaseModel):
    key: Key
    size: Size | None = None
    etag: Text | None = None
    version_id: Text | None = Field(None, alias="version-id")
    sequencer: Text = ""


class _Detail(BaseModel):
    bucket: _Bucket
    object: _BridgeObject
    deletion_type: str = Field("", alias="deletion-type")


class _Message(BaseModel):
    """Any of the three shapes; exactly one is filled."""

    records: list[_Record] | None = Field(None, alias="Records")
    source: str | None = None
    detail_type: str | None = Field(None, alias="detail-type")
    detail: dict[str, Any] | None = None
    event: str | None = Field(None, alias="Event")

    def changes(self) -> list[ObjectEvent]:
        if self.event == "s3:TestEvent":
            return []
        if self.records is not None:
            return [change for record in self.records if (change := record.change()) is not None]
        if self.source == "aws.s3":
            return self._bridge_changes()
        raise NotOursError(
            "Not an S3 event: neither Records nor source aws.s3. Look at what else sends to the events queue."
        )

    def _bridge_changes(self) -> list[ObjectEvent]:
        changes = {"Object Created": Change.CREATED, "Object Deleted": Change.REMOVED}
        change = changes.get(self.detail_type or "")
        if change is None:
            return []
        detail = _Detail.model_validate(self.detail)
        found = detail.object
        return [
            ObjectEvent(
                change=change,
                bucket=detail.bucket.name,
                key=found.key,
                version_id=_version(found.version_id),
                size=found.size,
                etag=found.etag,
                sequencer=found.sequencer,
                marker=detail.deletion_type == "Delete Marker Created",
            )
        ]


def _version(version_id: str | None) -> str:
    """S3 writes the version of an object in a bucket without versions as nothing, or as "null"."""
    return "" if version_id in (None, "null") else version_id or ""
