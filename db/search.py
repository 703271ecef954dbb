"""Full-text search over ``search_documents``.

Names and keywords are indexed as written, text found inside as English word stems, so each word of a query is
looked for as both. The last word is also a prefix: who types "moun" expects "mountain".
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal_column, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB, TSQUERY
from sqlalchemy.orm import Session, aliased

from db.models import MediaItem, SearchDocument

FACETS = ("kind", "mime_type", "year", "camera")
#: Values a facet names at most, the most frequent first.
FACET_VALUES = 20

_TERM = re.compile(r'(?P<minus>-?)"(?P<phrase>[^"]*)"?|(?P<word>\S+)')
_TsQuery = ColumnElement[Any]
_SIMPLE: ColumnElement[Any] = literal_column("'simple'::regconfig")
_ENGLISH: ColumnElement[Any] = literal_column("'english'::regconfig")


@dataclass(frozen=True, slots=True)
class Hit:
    """One media item that matches."""

    item: MediaItem
    title: str
    rank: float  #: higher is better; comparable within one query only


@dataclass(frozen=True, slots=True)
class Results:
    """A page of hits, and what all hits have in common."""

    hits: list[Hit]
    total: int
    facets: dict[str, dict[str, int]]  #: facet, value, number of hits that have it


def search(
    session: Session, query: str, *, limit: int, offset: int = 0, only: Mapping[str, str] | None = None
) -> Results:
    """Find living media items, best first, then newest first.

    ``query`` is what people type into a search box: words, "phrases", ``or``, ``-not``; no text is an error,
    except that it may not hold NUL. ``only`` keeps the hits that have these values of facets.
    """
    matches = _matches(_parse(query), only or {})
    documents = matches.subquery()
    page = session.execute(
        select(MediaItem, documents.c.title, documents.c.rank)
        .join(documents, documents.c.media_item_id == MediaItem.id)
        .order_by(documents.c.rank.desc(), MediaItem.id.desc())
        .limit(limit)
        .offset(offset)
    )
    hits = [Hit(item, title, float(rank)) for item, title, rank in page]
    total, facets = _facets(session, matches)
    return Results(hits, total, facets)


def _matches(query: _TsQuery, only: Mapping[str, str]) -> Select[Any]:
    """Every match with its facets; a duplicate is indexed by its name alone and has those of its original."""
    original = aliased(SearchDocument)
    facets = func.coalesce(original.facets, SearchDocument.facets, type_=JSONB())
    found = (
        select(
            SearchDocument.media_item_id,
            SearchDocument.title,
            func.ts_rank_cd(SearchDocument.document, query).label("rank"),
            *(facets[name].astext.label(name) for name in FACETS),
        )
        .join(MediaItem, MediaItem.id == SearchDocument.media_item_id)
        .outerjoin(original, original.media_item_id == MediaItem.duplicate_of_id)
        .where(SearchDocument.document.op("@@")(query), MediaItem.deleted_at.is_(None))
    )
    for name, value in only.items():
        found = found.where(facets[name].astext == value)
    return found


def _facets(session: Session, matches: Select[Any]) -> tuple[int, dict[str, dict[str, int]]]:
    """The number of all matches, and of those with each value of each facet, in one pass."""
    documents = matches.subquery()
    columns = [documents.c[name] for name in FACETS]
    counts = session.execute(
        select(*columns, *(func.grouping(column) for column in columns), func.count())
        .group_by(func.grouping_sets(tuple_(), *columns))
        .order_by(func.count().desc(), *columns)
    )
    total, facets = 0, {name: dict[str, int]() for name in FACETS}
    for *cells, count in counts:
        values, absent = cells[: len(FACETS)], cells[len(FACETS) :]
        if all(absent):
            total = count
        for name, value, other in zip(FACETS, values, absent, strict=True):
            if not other and value is not None and len(facets[name]) < FACET_VALUES:
                facets[name][value] = count
    return total, facets


def _parse(query: str) -> _TsQuery:
    """The tsquery for what somebody typed: ``or`` binds loosest, ``-`` tightest; neighbours all match."""
    terms = list(_TERM.finditer(unicodedata.normalize("NFC", query)))
    parsed: _TsQuery | None = None
    for either in _split_at_or(terms):
        every: _TsQuery | None = None
        for term in either:
            wanted = _term(term, is_last=term is terms[-1])
            every = wanted if every is None else func.tsquery_and(every, wanted, type_=TSQUERY())
        if every is not None:
            parsed = every if parsed is None else _or(parsed, every)
    return _words("", _SIMPLE) if parsed is None else parsed


def _split_at_or(terms: list[re.Match[str]]) -> list[list[re.Match[str]]]:
    groups: list[list[re.Match[str]]] = [[]]
    for term in terms:
        if (term["word"] or "").lower() == "or" and term is not terms[-1]:
            groups.append([])
        else:
            groups[-1].append(term)
    return groups


def _term(term: re.Match[str], *, is_last: bool) -> _TsQuery:
    if term["word"] is None:
        wanted, negated = _either(term["phrase"]), bool(term["minus"])
    else:
        negated = term["word"].startswith("-")
        word = term["word"].removeprefix("-")
        wanted = _prefix(word) if is_last and not negated else _either(word)
    return func.tsquery_not(wanted, type_=TSQUERY()) if negated else wanted


def _or(left: _TsQuery, right: _TsQuery) -> _TsQuery:
    """``left || right``: its function, because operators of one precedence would need parentheses."""
    return func.tsquery_or(left, right, type_=TSQUERY())


def _words(words: str, configuration: ColumnElement[Any]) -> _TsQuery:
    return func.phraseto_tsquery(configuration, words, type_=TSQUERY())


def _either(words: str) -> _TsQuery:
    """``words`` as written or as English stems; nothing when all are stop words ("the", "of")."""
    stems = _words(words, _ENGLISH)
    return case((func.numnode(stems) == 0, stems), else_=_or(_words(words, _SIMPLE), stems))


def _prefix(word: str) -> _TsQuery:
    """Words that begin with ``word``, or have its stem. Quoted, so that no character of it is an operator."""
    quoted = "'" + word.replace("\\", "\\\\").replace("'", "''") + "'"
    begins = func.to_tsquery(_SIMPLE, f"{quoted}:*", type_=TSQUERY())
    return _or(begins, _words(word, _ENGLISH))
