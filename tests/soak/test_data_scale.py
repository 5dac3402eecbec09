"""The measurement of a large data set, on few files."""

from . import data_scale


def test_every_step_is_measured(tmp_path):
    rows = data_scale.measure(tmp_path / 'scale', 500)
    assert [row['files'] for row in rows] == [500] * len(rows) and len(rows) == 5
