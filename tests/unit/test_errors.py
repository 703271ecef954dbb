from __future__ import annotations

import pickle
import re

import pytest

from pipeline import errors
from pipeline.errors import DailiesError, InvalidRequestError, PermanentStageError, StageError


def _tree(root: type[DailiesError]) -> list[type[DailiesError]]:
    return [root] + [leaf for child in root.__subclasses__() for leaf in _tree(child)]


OURS = [kind for kind in _tree(DailiesError) if kind.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", OURS)
def test_error_has_a_code_and_a_sentence(kind: type[DailiesError]) -> None:
    error = kind("The file is empty.")
    assert re.fullmatch(r"[A-Z][A-Z_]+", error.code)
    assert error.message == str(error) == "The file is empty."


@pytest.mark.parametrize("kind", OURS)
def test_error_survives_the_way_from_a_pool_child_to_its_parent(kind: type[DailiesError]) -> None:
    error = pickle.loads(pickle.dumps(kind("It is no picture.", code="TRUNCATED_IMAGE")))  # noqa: S301
    assert type(error) is kind
    assert (error.code, error.message) == ("TRUNCATED_IMAGE", "It is no picture.")


def test_code_of_an_error_leaves_its_class_alone() -> None:
    PermanentStageError("The file is empty.", code="EMPTY_FILE")
    assert PermanentStageError("Another.").code == "BAD_INPUT"


def test_request_error_names_the_field_that_is_wrong() -> None:
    error = InvalidRequestError("Priority 11 is too high.", field="priority")
    assert (error.field, error.code) == ("priority", "VALIDATION_ERROR")


def test_request_error_that_was_pickled_can_still_be_asked_for_its_field() -> None:
    error = pickle.loads(pickle.dumps(InvalidRequestError("Wrong.", field="stage")))  # noqa: S301
    assert error.field == "stage"


def test_what_a_stage_raises_is_a_stage_error() -> None:
    assert {kind.__name__ for kind in StageError.__subclasses__()} == {
        "PermanentStageError",
        "TransientStageError",
        "InfrastructureError",
    }


def test_module_shows_its_whole_tree_first() -> None:
    drawn = errors.__doc__ or ""
    assert [kind.__name__ for kind in OURS if kind.__name__ not in drawn] == []
