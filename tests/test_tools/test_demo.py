"""The demo's wiring, its table and its picture; not its numbers."""

import json

import cv2


def test_demo_runs_end_to_end(workplace):
    printed = workplace.run('demo/run.py', '--smoke')
    folder = workplace.folder / 'work_dirs' / 'demo_smoke'
    summary = json.loads((folder / 'summary.json').read_text())
    assert [row['name'] for row in summary] == ['ViT', 'LocAtViT']
    for row in summary:
        assert set(row) == {'name', 'top1', 'miou', 'params', 'seconds'}
        assert 0 <= row['top1'] <= 100 and 0 <= row['miou'] <= 100 and row['seconds'] > 0
        assert row['name'] in printed
    # GAug: 2 × 32 + 2 and 32 + 1 parameters in each of 4 blocks
    assert summary[1]['params'] - summary[0]['params'] == 4 * (32 * 3 + 3)
    picture = cv2.imread(str(folder / 'demo.png'))
    assert picture.shape[0] > 500 and picture.std() > 20
    assert 'already done' in workplace.run('demo/run.py', '--smoke')


def test_ablation_averages_over_seeds(workplace):
    # Results that are there are not computed again: three rows of made-up numbers, two seeds.
    folder = workplace.folder / 'work_dirs' / 'demo_ablation'
    rows = {
        'vit': 'ViT',
        'ablation/vit_gaug': 'ViT + GAug',
        'ablation/vit_prr': 'ViT + PRR',
        'locatvit': 'LocAtViT',
        'ablation/vit_gap': 'ViT + GAP',
        'ablation/vit_nopos': 'ViT - position embedding',
        'ablation/locatvit_nopos': 'LocAtViT - position embedding',
    }
    for stem, name in rows.items():
        for seed, top1 in ((0, 80.0), (1, 84.0)):
            result = dict(name=name, top1=top1, miou=20.0 + seed, params=7, seconds=3.0)
            file = folder / stem / f'seed{seed}' / 'result.json'
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(result))
    printed = workplace.run('demo/run.py', '--ablation', '--seeds', 2)
    summary = json.loads((folder / 'summary.json').read_text())
    assert [row['name'] for row in summary] == list(rows.values())
    assert summary[0]['seeds'] == 2 and summary[0]['top1'] == 82.0
    assert summary[0]['top1_std'] == 2.83 and summary[0]['miou_std'] == 0.71
    assert '82.00 ± 2.83' in printed
