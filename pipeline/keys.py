"""The S3 key layout: what a key says about its object, which limits hold for it, and the keys of thumbnails.

Storage bucket (keys are kept byte for byte; Unicode is never normalised)::

    raw/{episode_id}/{talent_source}/clip.mov      wardrobe/{outfit_id}/full_outfit.jpg
    scripts/{episode_id}/version_{n}.pdf           ui-elements/{ui_element_id}.svg
    trailers/{episode_id}/trailer.mp4              backgrounds/{background_id}.jpg
    audio/{episode_id}/bg_music.mp3                components/{episode_id}/{component_id}.ext
    uploads/{any path}

Thumbnail bucket: ``{entity_type}s/{entity_id}/{variant}.{fingerprint}.{token}.{extension}``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal
from uuid import UUID

from pipeline.errors import InvalidRequestError, PermanentStageError

MAX_KEY_BYTES = 1024  #: S3's own limit, in UTF-8
MEDIA_ITEM = "media_item"  #: the entity type of what belongs to no catalogue entity
MIB, GIB = 1024**2, 1024**3


@dataclass(frozen=True, slots=True)
class PrefixPolicy:
    """What holds for the objects below one prefix."""

    prefix: str  #: with its slash; empty for a key below none of the known prefixes
    entity_type: str = MEDIA_ITEM
    size_limit: int | None = None  #: bytes; None: the setting ``upload_limit``
    kinds: frozenset[str] | None = None  #: kinds of media accepted; None: every kind
    entity_id_in: Literal["folder", "stem"] | None = None  #: where the layout names the entity, if it does


_VIDEO, _AUDIO, _DOCUMENT = (frozenset({kind}) for kind in ("video", "audio", "document"))
_IMAGE = frozenset({"image", "vector", "sidecar"})  #: what a designer or a photographer delivers
POLICIES = (
    PrefixPolicy("raw/", "clip", 5 * GIB, _VIDEO),
    PrefixPolicy("scripts/", "script_version", 50 * MIB, _DOCUMENT),
    PrefixPolicy("trailers/", "episode", 500 * MIB, _VIDEO, "folder"),
    PrefixPolicy("wardrobe/", "outfit", 10 * MIB, _IMAGE, "folder"),
    PrefixPolicy("ui-elements/", "ui_element", 5 * MIB, _IMAGE, "stem"),
    PrefixPolicy("backgrounds/", "background", 10 * MIB, _IMAGE, "stem"),
    PrefixPolicy("audio/", MEDIA_ITEM, 100 * MIB, _AUDIO),
    PrefixPolicy("components/", "component", None, None, "stem"),
    PrefixPolicy("uploads/"),
)
_ELSEWHERE = PrefixPolicy("")


@dataclass(frozen=True, slots=True)
class ParsedKey:
    """What a key says about its object."""

    prefix: str
    entity_type: str  #: "media_item" unless the key names its entity
    entity_id: UUID | None
    filename: str  #: the last segment, as it is


def policy_for(key: str) -> PrefixPolicy:
    """The policy of the prefix that ``key`` lies below."""
    return next((policy for policy in POLICIES if key.startswith(policy.prefix)), _ELSEWHERE)


def parse_key(key: str) -> ParsedKey:
    """Read ``key`` by the layout. Raises InvalidRequestError for what cannot be a key."""
    _check_key(key)
    policy = policy_for(key)
    entity_id = _entity_id(key, policy)
    entity_type = MEDIA_ITEM if entity_id is None else policy.entity_type
    return ParsedKey(policy.prefix, entity_type, entity_id, key.rsplit("/", 1)[-1])


def size_limit_of(key: str, upload_limit: int) -> int:
    """The largest size in bytes accepted for ``key``, where ``upload_limit`` is the setting."""
    limit = policy_for(key).size_limit
    return upload_limit if limit is None else limit


def check_size(key: str, size: int, upload_limit: int) -> None:
    """Raise PermanentStageError EMPTY_FILE or FILE_TOO_LARGE unless ``key`` may hold ``size`` bytes."""
    if size == 0:
        raise PermanentStageError("The file is empty; upload it again.", code="EMPTY_FILE")
    limit = size_limit_of(key, upload_limit)
    if size > limit:
        policy = policy_for(key)
        where = policy.prefix or "this bucket"
        more = ", or ask the operator for more (DAILIES_UPLOAD_LIMIT)" if policy.size_limit is None else ""
        has, most = _megabytes(size, limit)
        raise PermanentStageError(
            f"The file has {has} MB, and {where} takes at most {most} MB: upload a smaller one{more}.",
            code="FILE_TOO_LARGE",
        )


def _check_key(key: str) -> None:
    length = len(key.encode("utf-8", "surrogatepass"))
    if not 0 < length <= MAX_KEY_BYTES:
        raise InvalidRequestError(
            f"A key must have 1 to {MAX_KEY_BYTES} bytes in UTF-8; this one has {length}.", field="key"
        )
    if "\0" in key:
        raise InvalidRequestError("A key must not contain the character NUL.", field="key")


def _entity_id(key: str, policy: PrefixPolicy) -> UUID | None:
    segments = key.removeprefix(policy.prefix).split("/")
    if policy.entity_id_in == "folder" and len(segments) > 1:
        return _uuid(segments[0])
    if policy.entity_id_in == "stem":
        return _uuid(PurePosixPath(segments[-1]).stem)
    return None


def _uuid(text: str) -> UUID | None:
    # UUID() also takes braces, "urn:uuid:" and missing hyphens, which the layout does not.
    return UUID(text) if _UUID.fullmatch(text) else None


def _megabytes(size: int, limit: int) -> tuple[str, str]:
    """Both, with as many decimals as tell them apart."""
    for decimals in range(7):
        told = tuple(f"{number / 1e6:,.{decimals}f}" for number in (size, limit))
        if told[0] != told[1]:
            break
    return told[0], told[1]


_UUID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")


@dataclass(frozen=True, slots=True)
class ThumbnailKey:
    """The parts of a thumbnail's key."""

    entity_type: str
    entity_id: UUID
    variant: str
    fingerprint: str  #: hexadecimal; of source bytes, parameters and processor version
    token: int  #: of the attempt that made the object
    extension: str  #: without the dot


_THUMBNAIL = re.compile(
    r"(?P<entity_type>[a-z][a-z_]*)s/(?P<entity_id>[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12})/"
    r"(?P<variant>[a-z0-9_-]+)\.(?P<fingerprint>[0-9a-f]+)\.(?P<token>0|[1-9][0-9]*)\.(?P<extension>[a-z0-9]+)"
)


def thumbnail_key(
    *, entity_type: str, entity_id: UUID, variant: str, fingerprint: str, token: int, extension: str
) -> str:
    """The key of one rendition. Raises InvalidRequestError for parts that the layout cannot carry."""
    key = f"{entity_type}s/{entity_id}/{variant}.{fingerprint}.{token}.{extension}"
    if _THUMBNAIL.fullmatch(key) is None:
        raise InvalidRequestError(f"{key!r} is no key of the thumbnail bucket.", field="key")
    _check_key(key)
    return key


def parse_thumbnail_key(key: str) -> ThumbnailKey | None:
    """The parts of a key that ``thumbnail_key`` made; None for any other key."""
    match = _THUMBNAIL.fullmatch(key)
    if match is None:
        return None
    parts = match.groupdict()
    entity_id, token = UUID(parts.pop("entity_id")), int(parts.pop("token"))
    return ThumbnailKey(entity_id=entity_id, token=token, **parts)
