"""Result files hold the keys of version 0.1 beside those of this version."""

import pytest

from lifelong_cvae import deprecated
from tests.conftest import lines_of, result_of

# Key of version 0.2 to the file that holds it.
FILES = {"recognizer": "result.json", "recognize": "metrics.jsonl"}


def nested_objects(value):
    """Yields all objects within a JSON value."""
    if isinstance(value, dict):
        yield value
        for nested in value.values():
            yield from nested_objects(nested)


@pytest.fixture(scope="module")
def objects_of_files(playback_run):
    """File name to all objects in the result files of a run that uses memory playback."""
    lines = {"metrics.jsonl": lines_of(playback_run), "result.json": [result_of(playback_run)]}
    return {file: [values for line in lines[file] for values in nested_objects(line)] for file in lines}


@pytest.mark.parametrize(("new", "old"), deprecated.RESULT_KEYS.items())
def test_result_files_hold_old_keys_with_equal_values(objects_of_files, new, old):
    assert any(new in values for values in objects_of_files[FILES[new]])
    for objects in objects_of_files.values():
        for values in objects:
            assert (new in values) == (old in values)
            assert values.get(new) == values.get(old)
