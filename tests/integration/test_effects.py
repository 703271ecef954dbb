"""What the stages' values change in the database, where no other module's tests say so."""

from __future__ import annotations

from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import effects
from db.effects import Done, Stored
from db.models import MediaItem, Thumbnail
from pipeline.stages.base import Asset
from pipeline.stages.thumbnails import ThumbnailsValue
from pipeline.workflows import StageName
from tests.factories import VARIANTS, add_item


def _make_pictures(session: Session, item: MediaItem, token: int) -> None:
    """What the thumbnails stage leaves when the attempt ``token`` has done its work."""
    asset = Asset(media_item_id=item.id, key=item.key, entity_type=item.entity_type, entity_id=item.entity_id)
    stored = tuple(
        Stored(variant, f"{variant}.{token}.jpg", width, height, 9, "image/jpeg")
        for variant, (width, height) in VARIANTS.items()
    )
    done = Done(asset, ThumbnailsValue(variants=()), stored=stored)
    effects.apply(session, StageName.THUMBNAILS, done)


def _pictures(session: Session, item: MediaItem) -> set[str]:
    return set(session.scalars(select(Thumbnail.file_reference).where(Thumbnail.media_item_id == item.id)))


def _made_by(token: int) -> set[str]:
    return {f"{variant}.{token}.jpg" for variant in VARIANTS}


def test_pictures_of_an_entitys_second_file_leave_those_of_the_first(session: Session) -> None:
    outfit = uuid4()
    front, back = (add_item(session, entity_type="outfit", entity_id=outfit) for _ in range(2))
    _make_pictures(session, front, 1)
    _make_pictures(session, back, 2)
    assert (_pictures(session, front), _pictures(session, back)) == (_made_by(1), _made_by(2))
    rows = session.execute(select(Thumbnail.entity_type, Thumbnail.entity_id).distinct()).all()
    assert [tuple(row) for row in rows] == [("outfit", outfit)]


def test_pictures_made_again_replace_those_of_their_own_file_alone(session: Session) -> None:
    outfit = uuid4()
    front, back = (add_item(session, entity_type="outfit", entity_id=outfit) for _ in range(2))
    for item, token in ((front, 1), (back, 2), (front, 3)):
        _make_pictures(session, item, token)
    assert (_pictures(session, front), _pictures(session, back)) == (_made_by(3), _made_by(2))
