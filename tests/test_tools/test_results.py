"""The tables of the results page, held to intervals computed in another way."""

import itertools
import json
import re
import runpy

import numpy as np
import pytest
from scipy import stats

from tests.support import ROOT

tool = runpy.run_path(str(ROOT / 'tools' / 'misc' / 'results.py'))
PAGE = 'Text.\n<!-- results: runs {} -->\n{}<!-- end -->\nMore text.\n'
TOP1 = {'ViT': [80.0, 81.0, 83.0, 80.5, 79.0], 'B': [82.0, 82.5, 85.5, 81.0, 82.0]}
MIOU = {'ViT': [20.0, 21.0, 20.5, 22.0, 19.0], 'B': [20.5, 20.0, 21.5, 21.0, 19.5]}


@pytest.fixture
def page(tmp_path):
    rows = [
        dict(
            name=name,
            params=1234,
            runs=[dict(top1=a, miou=b) for a, b in zip(TOP1[name], MIOU[name], strict=True)],
        )
        for name in TOP1
    ]
    (tmp_path / 'page').mkdir()
    about = dict(command='make x', date='2026-01-01')
    (tmp_path / 'page' / 'runs.json').write_text(json.dumps(dict(about=about, rows=rows)))
    return tmp_path / 'page.md'


def written(page, kind):
    page.write_text(PAGE.format(kind, ''))
    tool['main'](['--page', str(page), '--write'])
    lines = page.read_text().splitlines()
    assert (lines[0], lines[-1]) == ('Text.', 'More text.')
    return [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines[2:-2]]


def test_intervals_are_those_of_all_resamples(page):
    differences = np.subtract(TOP1['B'], TOP1['ViT'])
    means = np.array([np.mean(drawn) for drawn in itertools.product(differences, repeat=5)])
    low, high = tool['paired_interval'](differences)
    # 9,999 draws out of 3,125 resamples: within a step of their distribution
    for quantile, found in ((2.5, low), (97.5, high)):
        around = np.percentile(means, [quantile - 0.6, quantile + 0.6])
        assert around[0] <= found <= around[1]
    header, rule, row = written(page, 'differences')
    assert header == ['difference', 'top-1 (%)', 'linear mIoU (%)', 'seeds']
    assert set(rule) == {'---'}
    assert row[:2] == ['B minus ViT', f'**+1.90 [{low:+.2f}, {high:+.2f}]**']
    assert row[2].startswith('+0.00 [-') and row[3] == '5'  # no difference, not bold


def test_pairs_that_the_summary_asks_for_follow(page):
    file = page.parent / 'page' / 'runs.json'
    summary = json.loads(file.read_text())
    summary['rows'].append(dict(name='C', runs=summary['rows'][1]['runs'][:2]))
    file.write_text(json.dumps(dict(summary, compared=[['ViT', 'C']])))
    *_, first, pair = written(page, 'differences')
    assert first[0] == 'C minus ViT' and pair[0] == 'ViT minus C' and pair[3] == first[3] == '2'
    assert pair[1].startswith('-1.75 [') and first[1].startswith('+1.75 [')


def test_a_difference_holds_as_the_t_test_says():
    generator = np.random.default_rng(0)
    samples = [generator.normal(0.8, 1, 5) for _ in range(40)]
    expected = [stats.ttest_1samp(sample, 0).pvalue < 0.05 for sample in samples]
    assert [tool['holds'](sample) for sample in samples] == expected
    assert 0 < sum(expected) < 40


def test_means_deviations_and_the_papers_numbers(page):
    _, _, vit, other = written(page, 'paper')
    assert written(page, 'quality')[2] == vit[:-1]
    deviations = [(sum((v - 80.7) ** 2 for v in TOP1['ViT']) / 4) ** 0.5, 2.5**0.5 / 2**0.5]
    assert vit[:2] == ['ViT', f'80.70 ± {deviations[0]:.2f}']
    assert vit[2] == f'20.50 ± {deviations[1]:.2f}' and vit[3:] == ['5', '1,234', '72.39 / 17.30']
    assert other[-1] == ''
    assert written(page, 'about')[2:] == [['command', 'make x'], ['date', '2026-01-01']]


def test_a_change_of_differences_has_welchs_interval(page):
    folder = page.parent / 'page'
    summary = json.loads((folder / 'runs.json').read_text())
    earlier = [dict(top1=80.0 + i, miou=20.0 + i) for i in range(3)]
    coarse = [dict(top1=80.0 + i + 0.1 * i, miou=21.0 + 2 * i) for i in range(3)]
    rows = [dict(name='ViT', runs=earlier), dict(name='C', runs=[]), dict(name='B', runs=coarse)]
    (folder / 'coarse.json').write_text(json.dumps(dict(summary, rows=rows)))
    header, _, vit, own, row = written(page, 'change coarse')
    assert header == ['change', 'top-1 (%)', 'linear mIoU (%)']
    found = stats.ttest_ind(TOP1['ViT'], [80, 81, 82], equal_var=False).confidence_interval()
    assert vit[:2] == ['ViT', f'-0.30 [{found.low:+.2f}, {found.high:+.2f}]']
    assert own[0] == 'B' and own[1].startswith('+1.50 [-')
    new = np.subtract(TOP1['B'], TOP1['ViT'])
    old = np.array([0.0, 0.1, 0.2])
    variances = new.var(ddof=1) / 5, old.var(ddof=1) / 3
    freedom = sum(variances) ** 2 / (variances[0] ** 2 / 4 + variances[1] ** 2 / 2)
    half = stats.t.ppf(0.975, freedom) * sum(variances) ** 0.5
    mean = new.mean() - 0.1
    assert row[:2] == ['B minus ViT', f'**{mean:+.2f} [{mean - half:+.2f}, {mean + half:+.2f}]**']
    new, old = np.subtract(MIOU['B'], MIOU['ViT']), np.array([1.0, 2.0, 3.0])
    p_value = stats.ttest_ind(new, old, equal_var=False).pvalue
    assert row[2].startswith('**-2.00 [-') and 0.04 < p_value < 0.05


def test_claims_are_lines(page):
    summary = json.loads((page.parent / 'page' / 'runs.json').read_text())
    summary['compared'] = [['B', 'ViT']]
    (page.parent / 'page' / 'runs.json').write_text(json.dumps(summary))
    vit, other = written(page, 'quality')[2:]
    differences = written(page, 'differences')[-1]
    header, _, top1, miou = written(page, 'claims')
    assert header == ['5 seeds', 'ViT', 'B', 'B minus ViT']
    assert top1 == ['top1', vit[1], other[1], differences[1]]
    assert miou == ['miou', vit[2], other[2], differences[2]]


def test_a_stale_table_is_an_error(page, capsys):
    written(page, 'quality')
    tool['main'](['--page', str(page)])
    assert '1 tables, as the summaries say' in capsys.readouterr().out
    page.write_text(page.read_text().replace('80.70', '81.70'))
    with pytest.raises(ValueError, match=r'run this tool with --write:\n.*81.70(.|\n)*80.70'):
        tool['main'](['--page', str(page)])


def test_the_page_is_what_its_summaries_say():
    tool['main']([])


def test_the_readme_quotes_the_page():
    text = (ROOT / 'README.md').read_text()
    quote = text.partition('Measured here')[2].partition('Intervals')[0]
    lines = [line for line in quote.splitlines() if '→' in line][1:]
    quoted = [('ablation', ''), ('grid', ''), ('land_cover', '')]
    quoted += [('growth', f', width {width}, 12000 images') for width in (128, 256)]
    of_fixed: dict[str, list[str]] = {'miou': [], 'top1': []}
    for line, (summary, size) in zip(lines, quoted, strict=True):
        found = json.loads((ROOT / 'docs' / 'results' / f'{summary}.json').read_text())
        rows = {row['name']: row for row in found['rows']}
        vit, locat = rows[f'ViT{size}'], rows[f'LocAtViT{size}']
        cells = [cell.strip() for cell in line.split('|')[2:-1]]
        expected = [f'{vit["params"] / 1e6:.1f} M']
        for metric, constant in of_fixed.items():
            plain, other = ([run[metric] for run in row['runs']] for row in (vit, locat))
            bold = '**' if stats.ttest_rel(other, plain).pvalue < 0.05 else ''
            expected.append(f'{np.mean(plain):.2f} → {bold}{np.mean(other):.2f}{bold}')
            if (fixed := rows.get('ViT + fixed Gaussian')) is not None:
                constant.append(f'{np.mean([run[metric] for run in fixed["runs"]]):.2f}')
        assert cells == [*expected, str(len(vit['runs']))]
    after = quote.partition('A constant Gaussian')[2]
    assert re.findall(r'\d+\.\d{2}', after) == of_fixed['miou'] + of_fixed['top1']


def test_mistakes_are_named(page):
    page.write_text('No table.')
    with pytest.raises(ValueError, match='no line <!-- results'):
        tool['main'](['--page', str(page)])
    page.write_text(PAGE.format('quality', '').replace('quality', 'qualities'))
    with pytest.raises(
        ValueError, match="no table 'qualities'; there are quality, paper, differences"
    ):
        tool['main'](['--page', str(page)])
    good = PAGE.format('quality', '')
    for bad in (
        good.replace('<!-- end -->', '', 1) + good,  # would swallow the text between
        good + '<!-- results: runs-2 about -->\n<!-- end -->\n',
    ):
        page.write_text(bad)
        with pytest.raises(ValueError, match='or no <!-- end --> follows'):
            tool['main'](['--page', str(page), '--write'])
        assert page.read_text() == bad
    for kind, count in (('change', 'two summaries'), ('quality runs', 'one summary')):
        page.write_text(PAGE.format(kind, ''))
        with pytest.raises(ValueError, match=f'is of {count}: <!-- results: runs {kind} -->'):
            tool['main'](['--page', str(page)])
    with pytest.raises(ValueError, match='at least two seeds, got 1'):
        tool['paired_interval'](np.array([1.0]))
