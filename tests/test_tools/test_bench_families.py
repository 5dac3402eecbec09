"""benchmarks/families.py: its wiring and its table; not its numbers."""

import re
from functools import partial

import families
import pytest
import torch

from tests.support.processes import server


def test_one_row_a_model(tmp_path, monkeypatch, capsys):
    server()  # forks the processes whose memory is measured
    monkeypatch.setattr(
        families, 'in_fresh_processes', partial(families.in_fresh_processes, fork=True)
    )
    out, threads = tmp_path / 'bench' / 'table.md', str(torch.get_num_threads())
    settings = ['--smoke', '--families', 'vit', '--threads', threads]
    families.main([*settings, '--out', str(out)])
    table, printed = out.read_text(), capsys.readouterr().out
    assert table in printed and '[1/1] vit, tiny' in printed
    rows = [re.split(r' *\| *', line)[1:-1] for line in table.splitlines() if line[:1] == '|']
    assert [row[0] for row in rows[2:]] == ['ViT-Tiny', 'LocAtViT-Tiny']
    # GAug's 195 parameters in each of 12 blocks; the counts of GMACs are test_get_flops.py's.
    counts = [int(row[1].replace(',', '')) for row in rows[2:]]
    assert counts == [5_717_416, 5_717_416 + 12 * 195]
    assert [row[2] for row in rows[2:]] == ['1.254', '1.255']
    for row in rows[2:]:
        speed, memory = float(row[3]), float(row[5])
        # The weights alone take 22 MiB.
        assert speed > 0 and 22 < memory < 1000
    assert rows[2][4] == rows[2][6] == '' and float(rows[3][4]) > 0 < float(rows[3][6])


def test_bad_input_is_one_clear_error(capsys):
    for wrong, message in (
        (['--rounds', '0'], '--rounds must be positive, got 0'),
        (['--families', 'resnet'], "invalid choice: 'resnet'"),
    ):
        with pytest.raises(SystemExit):
            families.main(wrong)
        assert message in capsys.readouterr().err.splitlines()[-1]
