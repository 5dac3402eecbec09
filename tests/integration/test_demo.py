"""The demo's wiring, its table and its picture; not its numbers."""

import argparse
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import claims
import cv2
import dino
import numpy as np
import pytest
import run
import steps
from evaluating import CHANGES, TrainedModel
from mmengine.config import Config, DictAction
from summaries import pairs_of


@pytest.fixture
def forked(workplace, monkeypatch):
    """The demo's ``main`` in this process. The tools that it calls are forked."""
    monkeypatch.chdir(workplace.folder)

    def run_command(label: str, log: Path, command: list[str]) -> None:
        python, script, *args = command
        processes = 1
        if python == 'bash':
            place = 1 if 'dist_train.sh' in script else 2
            processes = int(args.pop(place))
            script = script.replace('dist_', '').replace('.sh', '.py')
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(workplace.run(script, *args, processes=processes))

    monkeypatch.setattr(steps, 'run_command', run_command)
    return run.main


def test_demo_runs_end_to_end(workplace, forked, capsys):
    forked(['--smoke'])
    printed = capsys.readouterr().out
    folder = workplace.folder / 'work_dirs' / 'demo_smoke'
    summary = json.loads((folder / 'summary.json').read_text())
    assert [row['name'] for row in summary] == ['ViT', 'ViT + fixed Gaussian', 'LocAtViT']
    for row in summary:
        assert set(row) == {'name', 'top1', 'miou', 'params', 'seconds', 'knn', 'in_context'}
        assert 0 < row['knn'] <= 100 and 0 <= row['in_context'] <= 100
        assert 0 <= row['top1'] <= 100 and 0 <= row['miou'] <= 100 and row['seconds'] > 0
        assert row['name'] in printed
    # GAug: 2 × 32 + 2 and 32 + 1 parameters in each of 4 blocks
    assert summary[2]['params'] - summary[0]['params'] == 4 * (32 * 3 + 3)
    assert summary[1]['params'] == summary[0]['params']
    picture = cv2.imread(str(folder / 'demo.png'))
    assert picture.shape[0] > 500 and picture.std() > 20
    # What claims.py calls is the test of tools/test.py.
    for part, key, metric in (('classify', 'top1', 'accuracy/top1'), ('segment', 'miou', 'mIoU')):
        checkpoint = steps.last_checkpoint(folder / 'locatvit' / 'seed0' / part)
        trained = TrainedModel(dino.DIGITS.config(f'locatvit_{part}'), checkpoint)
        assert trained.evaluate()[metric] == pytest.approx(summary[2][key], abs=0.02)
    # Larger images: the masks that the maps are compared with are those of the files.
    seen = []
    trained.evaluate([lambda results: seen.append(results['img_path']) or results])
    assert len(set(seen)) == len(trained.dataset())
    sample = trained.dataset(CHANGES['2 times as large'])[0]
    assert sample['inputs'].shape == (3, 144, 144)
    mask = cv2.imread(sample['data_samples'].seg_map_path, cv2.IMREAD_UNCHANGED)
    assert mask.shape == (72, 72) == sample['data_samples'].ori_shape
    np.testing.assert_array_equal(sample['data_samples'].gt_sem_seg.data[0], mask)


@pytest.mark.parametrize('threads', [1, 2])
def test_a_model_waits_for_the_one_that_it_starts_from(monkeypatch, threads):
    rows = run.EXPERIMENTS['ablation'].rows[::-1]  # those that start from ViT come before it
    begun, done = [], []

    def run_row(row, seed, experiment, smoke):
        begun.append((row, seed))
        assert row.start is None or (row.start, seed) in done
        time.sleep(0.2 if row.name == 'ViT' else 0.001)  # the other thread is done before
        done.append((row, seed))
        return dict(name=row.name, seed=seed)

    monkeypatch.setattr(run, 'run_row', run_row)
    jobs = [(row, seed) for seed in (1, 0) for row in rows]
    found = []

    def run_all():
        with ThreadPoolExecutor(threads) as pool:
            found.extend(run.run_rows(jobs, run.EXPERIMENTS['ablation'], False, pool))

    # A model that waits for one that has not begun would wait forever.
    thread = threading.Thread(target=run_all, daemon=True)
    thread.start()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert [(result['name'], result['seed']) for _, result in found] == [
        (row.name, seed) for row, seed in jobs
    ]
    assert [job for job, _ in found] == jobs
    # seed by seed: no more of the second seed has begun than the other thread can
    assert [seed for _, seed in begun[:11]] == [0] * 11


def test_a_failed_start_ends_what_depends_on_it(monkeypatch):
    def run_row(row, seed, experiment, smoke):
        assert row.start is None
        raise SystemExit(f'{row.name} failed')

    monkeypatch.setattr(run, 'run_row', run_row)
    vit, fixed, _ = run.EXPERIMENTS['demo'].rows
    with ThreadPoolExecutor(2) as pool:
        found = run.run_rows([(fixed, 0), (vit, 0)], run.EXPERIMENTS['demo'], False, pool)
        with pytest.raises(SystemExit, match='ViT failed'):
            next(found)  # the result of the one that starts from ViT


def test_ablation_averages_over_seeds(workplace, monkeypatch):
    monkeypatch.chdir(workplace.folder)
    # Results that are there are not computed again: made-up numbers, two seeds.
    folder = workplace.folder / 'work_dirs' / 'demo_ablation'
    for row in run.EXPERIMENTS['ablation'].rows:
        for seed, top1 in ((0, 80.0), (1, 84.0)):
            result = dict(name=row.name, top1=top1, miou=20.0 + seed, params=7, seconds=3.0)
            file = folder / row.stem / f'seed{seed}' / 'result.json'
            file.parent.mkdir(parents=True)
            file.write_text(json.dumps(result))
            file.with_name('features.json').write_text(
                json.dumps(
                    dict(
                        knn=70.0 + 2 * seed,
                        in_context=9.0,
                        fingerprint=steps.features_fingerprint(
                            row, run.EXPERIMENTS['ablation'].data
                        ),
                    )
                )
            )
            file.with_name('fingerprint').write_text(
                steps.fingerprint(row, run.EXPERIMENTS['ablation'], smoke=False)
            )
    printed = workplace.run_anew('demo/run.py', '--ablation', '--seeds', 2)
    assert printed.count('already done') == 2 * len(run.EXPERIMENTS['ablation'].rows)
    summary = json.loads((folder / 'summary.json').read_text())
    assert [row['name'] for row in summary] == [
        row.name for row in run.EXPERIMENTS['ablation'].rows
    ]
    assert len(summary) == len(set(row['name'] for row in summary))
    assert summary[0]['seeds'] == 2 and summary[0]['top1'] == 82.0
    assert summary[0]['top1_std'] == 2.83 and summary[0]['miou_std'] == 0.71
    assert '82.00 ± 2.83' in printed
    results = json.loads((folder / 'results.json').read_text())
    assert [run['top1'] for run in results['rows'][0]['runs']] == [80.0, 84.0]
    assert results['about']['command'] == 'make demo-ablation SEEDS=2'
    names = {row['name'] for row in results['rows']}
    assert results['compared'] and all(set(pair) <= names for pair in results['compared'])
    assert summary[0]['knn'] == 71.0 and '71.00 ± 1.41' in printed and '9.00 ± 0.00' in printed


@pytest.mark.fields
def test_the_fine_grid_from_training_to_results(workplace, forked, monkeypatch):
    # One of three models, to save time; test_demo_grid.py holds all configs to the demo's.
    experiment = run.EXPERIMENTS['grid']
    chosen = replace(experiment, rows=experiment.rows[1:2])
    monkeypatch.setitem(run.EXPERIMENTS, 'grid', chosen)
    forked(['--grid', '--smoke', '--seeds', '1'])
    results = workplace.folder / 'work_dirs' / 'demo_grid_smoke' / 'results.json'
    (row,) = json.loads(results.read_text())['rows']
    assert row['name'] == 'LocAtViT' and len(row['runs']) == 1
    assert {'top1', 'miou', 'knn', 'in_context', 'seconds'} == set(row['runs'][0])
    # patches of 4: 108 more positions of width 64, filters of 16 pixels in place of 64
    assert row['params'] == 215_244 + 64 * (144 - 36) - 64 * 3 * (64 - 16)


@pytest.mark.fields
@pytest.mark.parametrize('name', ['ViT + GAP', 'LocAtViT - position embedding'])
def test_a_row_of_the_ablation_from_training_to_results(workplace, forked, monkeypatch, name):
    experiment = run.EXPERIMENTS['ablation']
    (row,) = (row for row in experiment.rows if row.name == name)
    monkeypatch.setitem(run.EXPERIMENTS, 'ablation', replace(experiment, rows=(row,)))
    forked(['--ablation', '--smoke', '--seeds', '1'])
    results = workplace.folder / 'work_dirs' / 'demo_ablation_smoke' / 'results.json'
    (found,) = json.loads(results.read_text())['rows']
    assert found['name'] == name
    assert {'top1', 'miou', 'knn', 'in_context', 'seconds'} == set(found['runs'][0])
    assert found['runs'][0]['knn'] > 0


@pytest.mark.fields
def test_claims_from_training_to_results(workplace, forked):
    claims.main(['--smoke', '--seeds', '1'])
    folder = workplace.folder / 'work_dirs' / 'demo_claims_smoke'
    found = {file.stem: json.loads(file.read_text()) for file in folder.glob('*.json')}
    runs = {
        name: {row['name']: row['runs'][0] for row in summary['rows']}
        for name, summary in found.items()
    }
    assert list(runs['similarity']) == ['ViT', 'ViT + GAug', 'ViT + PRR', 'LocAtViT']
    for run_ in runs['similarity'].values():
        assert list(run_) == [f'block {i}' for i in (1, 2, 3, 4)]
        assert 1 < max(map(abs, run_.values())) <= 100  # percent
    # Without PRR the loss reads [CLS] alone, which has no Gaussian: the last GAug cannot learn.
    assert runs['gradient']['ViT + GAug']['block 4'] == 0
    assert runs['gradient']['LocAtViT']['block 4'] > 0
    for run_ in runs['gradient'].values():
        assert sum(run_.values()) == pytest.approx(100, abs=1e-3)
    results = workplace.folder / 'work_dirs' / 'demo_ablation_smoke'
    for stem, name in (('vit', 'ViT'), ('locatvit', 'LocAtViT')):
        result = json.loads((results / stem / 'seed0' / 'result.json').read_text())
        measured = runs['robustness'][name]
        assert measured['top-1, as they are'] == pytest.approx(result['top1'], abs=0.02)
        assert measured['linear mIoU, as they are'] == pytest.approx(result['miou'], abs=0.02)
        assert 0 < measured['calibration error'] < 100 and len(measured) == 13
    assert [*measured][-1] == 'calibration error'
    assert list(runs['gradient']) == ['ViT + GAug', 'LocAtViT']


@pytest.mark.fields
def test_growth_options_make_wider_models(workplace, forked, monkeypatch, capsys):
    # One row for real; the others' results are there.
    experiment = run.EXPERIMENTS['growth']
    folder = workplace.folder / 'work_dirs' / 'demo_growth_smoke'
    for row in experiment.rows:
        file = experiment.work_dir(row, 0, smoke=True) / 'result.json'
        if row.name == 'LocAtViT, width 128, 12000 images':
            continue
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(dict(name=row.name, top1=1.0, miou=2.0, params=3, seconds=4.0)))
        file.with_name('fingerprint').write_text(steps.fingerprint(row, experiment, smoke=True))
    forked(['--growth', '--smoke', '--seeds', '1'])
    assert capsys.readouterr().out.count('already done') == 11
    results = json.loads((folder / 'results.json').read_text())
    pairs = pairs_of(results)
    assert [(pair.width, pair.images) for pair in pairs] == [
        *((64, images) for images in (1500, 3000, 6000, 12000)),
        *((128, 12000), (256, 12000)),
    ]
    blocks = 4 * (12 * 128**2 + 13 * 128)  # layers of a ViT block, their biases and two norms
    embeddings = 128 * (3 * 64 + 1 + 1 + 37)  # patches, bias, class token, positions
    gaug = 4 * (32 * 3 + 3)  # per head of 32 channels: as many as in the demo
    assert pairs[4].locat['params'] == blocks + embeddings + gaug + 2 * 128


@pytest.mark.parametrize('images', [1500, 3000, 6000])
def test_fewer_images_keep_classes_and_updates(images):
    rows = [row for row in run.EXPERIMENTS['growth'].rows if f' {images} images' in row.name]
    assert [row.name.partition(',')[0] for row in rows] == ['ViT', 'LocAtViT']
    for row in rows:
        demo = Config.fromfile(dino.DIGITS.config(f'{row.stem}_classify'))
        cfg = Config.fromfile(dino.DIGITS.config(f'{row.stem}_classify'))
        parser = argparse.ArgumentParser()
        parser.add_argument('--cfg-options', nargs='+', action=DictAction)
        options = parser.parse_args(['--cfg-options', *row.options['classify']]).cfg_options
        cfg.merge_from_dict(options)
        assert cfg.model == demo.model  # the width is the demo's
        chosen = np.array(cfg.train_dataloader.dataset['indices'])
        # 1,200 images of each class, sorted by class
        assert np.bincount(chosen // 1200).tolist() == [images // 10] * 10
        assert len(set(chosen)) == images

        def updates(cfg, count):
            per_epoch = count // cfg.train_dataloader.batch_size
            warm_up, decay = cfg.param_scheduler
            assert decay.begin == warm_up.end
            return np.array([per_epoch * warm_up.end, per_epoch * cfg.train_cfg.max_epochs])

        np.testing.assert_allclose(updates(cfg, images), updates(demo, 12000), rtol=0.02)


def test_families_run_through_the_dist_tools(workplace, forked, capsys):
    # One family for real; the others' results are there.
    experiment = run.EXPERIMENTS['families']
    folder = workplace.folder / 'work_dirs' / 'demo_families_smoke'
    for row in experiment.rows:
        if row.name == 'LocAtSwin':
            continue
        file = folder / row.stem / 'seed0' / 'result.json'
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(dict(name=row.name, top1=1.0, miou=2.0, params=3, seconds=4.0)))
        file.with_name('fingerprint').write_text(steps.fingerprint(row, experiment, smoke=True))
    forked(['--families', '--smoke'])
    printed = capsys.readouterr().out
    summary = json.loads((folder / 'summary.json').read_text())
    assert [row['name'] for row in summary] == [
        *('ViT', 'LocAtViT', 'RegViT', 'LocAtRegViT', 'RoPEViT', 'LocAtRoPEViT'),
        *('Jumbo', 'LocAtJumbo', 'Swin', 'LocAtSwin'),
    ]
    assert 'processes each: 2' in printed
    log = (folder / 'families' / 'locatswin' / 'seed0' / 'classify' / 'train.txt').read_text()
    assert '2 processes on CPU over gloo' in log
    assert summary[-1]['params'] > 1000


def test_dino_table_over_seeds(workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace.folder)

    # Results that are there are not computed again: made-up numbers, two seeds.
    def write(folder, mark, result):
        folder.mkdir(parents=True)
        (folder / 'fingerprint').write_text(mark)
        (folder / 'result.json').write_text(json.dumps(result))

    health = dict(entropy=3.0, batch_entropy=4.0, kl=0.5, spread=0.6)
    for row in dino.DEMO:
        for kind, scale in (('trained', []), ('untrained', dino.UNTRAINED)):
            for seed, linear in ((0, 30.0), (1, 34.0)):
                seeded = [f'randomness.seed={seed}']
                folder = dino.WORK_DIR / kind / row.stem / f'seed{seed}'
                config = dino.DIGITS.config(f'dino/{row.stem}_dino')
                trained = dino.digest(dino.DIGITS, [config], [*seeded, *scale])
                write(folder / 'dino', trained, health)
                configs = dino.evaluation_configs(row)
                evaluated = dino.digest(dino.DIGITS, configs, seeded, trained)
                write(
                    folder / 'evaluation', evaluated, dict(linear=linear, knn=20.0, in_context=10.0)
                )
    dino.main(['--seeds', '2'])
    printed = capsys.readouterr().out
    assert printed.count('already done') == 16
    assert '32.0 ± 2.8' in printed and '4.00 ± 0.00' in printed
    summary = json.loads((dino.WORK_DIR / 'summary.json').read_text())
    assert list(summary) == ['ViT', 'LocAtViT', 'ViT, untrained', 'LocAtViT, untrained']


def test_dino_health_is_the_last_of_a_resumed_run(tmp_path):
    health = dict(entropy=3.0, batch_entropy=4.0, kl=0.5, spread=0.6)
    for name, kl in (('1_first', 1.0), ('2_resumed', 2.0)):
        file = tmp_path / name / 'vis_data' / 'scalars.json'
        file.parent.mkdir(parents=True)
        lines = [{**health, 'kl': kl}, {'knn/top1_k20': 20.0}]
        file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    assert dino.read_health(tmp_path) == {**health, 'kl': 2.0}


def test_dino_options_fit_the_configs():
    for stem in ('vit', 'locatvit'):
        keys = {option.split('=')[0] for option in (*dino.SMOKE, *dino.UNTRAINED)}
        keys -= {'train_dataloader.dataset.indices'}  # mmengine's, not set in the config
        for key in keys:
            found = Config.fromfile(dino.DIGITS.config(f'dino/{stem}_dino'))
            for part in key.split('.'):
                assert part in found, key
                found = found[part]
