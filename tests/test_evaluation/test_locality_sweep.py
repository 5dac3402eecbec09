"""tools/analysis_tools/locality_sweep.py: held to models that have the setting from the start."""

import json
import runpy

import matplotlib.image
import pytest
import torch
from mmengine.config import Config

from locat_mm.cli.locality_sweep import Cell, Sweep, best_of, config_line, layers_named
from locat_mm.registry import MODELS
from tests.support import ROOT
from tests.support.evaluation import TINY, in_context_config, knn_config, quick_runner

main = runpy.run_path(str(ROOT / 'tools' / 'analysis_tools' / 'locality_sweep.py'))['main']


@pytest.fixture
def files(scenes, objects, tmp_path):
    """In-context config, classifier's config with a k-NN test, and the classifier's checkpoint."""
    cfg = in_context_config(scenes, tmp_path / 'run')
    cfg.model.backbone.gaug = False
    knn = knn_config(objects, tmp_path / 'knn')
    knn.model.backbone.update(gaug=False, out_type='cls_token')
    knn.model.pop('neck')
    checkpoint = tmp_path / 'classifier.pth'
    torch.manual_seed(0)
    model = MODELS.build(dict(knn.model, type='mmpretrain.ImageClassifier'))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.save(model.state_dict(), checkpoint)
    return write(cfg, tmp_path / 'scenes.py'), write(knn, tmp_path / 'objects.py'), str(checkpoint)


def write(cfg: Config, path) -> str:
    settings = {k: v for k, v in cfg.to_dict().items() if k != 'work_dir'}
    path.write_text('\n'.join(f'{key} = {value!r}' for key, value in settings.items()))
    return str(path)


def measure(path: str, checkpoint: str, **attached) -> dict:
    """mIoU of a config whose backbone has the setting."""
    cfg = Config.fromfile(path)
    init = dict(type='Pretrained', checkpoint=checkpoint, prefix='backbone.')
    host = dict(cfg.model.backbone, init_cfg=init)
    wrapped = dict(type='locat_mm.LocAt', start='fixed', backbone=host, **attached)
    cfg.model.backbone = wrapped if attached else host
    cfg.work_dir = path.removesuffix('.py')
    cfg.visualizer.name = f'{path}{attached}'
    runner = quick_runner(cfg)
    runner.model.init_weights()
    return round(float(runner.test()['mIoU']), 2)


def test_a_sweep(files, tmp_path, capsys):
    config, classifier, checkpoint = files
    grid = ['--variance', '0.5', '4', '--alpha', '8', '--layers', 'all', 'last']
    common = [config, checkpoint, '--prefix', 'backbone', '--out', str(tmp_path / 'out')]
    main([*common, *grid, '--knn', classifier])
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / 'out' / 'sweep.json').read_text())
    found = {
        (cell['variance'], tuple(cell['layers'] or ())): cell['mIoU'] for cell in content['cells']
    }
    assert len(found) == 5
    for variance, layers in ((0.5, (0, 1)), (4.0, (1,))):
        settings = dict(variance=variance, alpha=8.0, layers=layers)
        assert found[variance, layers] == measure(config, checkpoint, **settings)
    assert found[None, ()] == measure(config, checkpoint)
    assert len(set(found.values())) > 2
    assert all(0 <= cell['knn'] <= 100 for cell in content['cells'])
    best = max(found.values())
    assert f'Best: in-context mIoU (%) {best:.2f} (as it is {found[None, ()]:.2f}), k-NN' in printed
    assert matplotlib.image.imread(tmp_path / 'out' / 'sweep.png').std() > 0.05

    # What is done is not done again: the numbers of the file are taken as they are.
    content['cells'][1]['mIoU'] = 99.0
    content['cells'].pop()
    (tmp_path / 'out' / 'sweep.json').write_text(json.dumps(content))
    main([*common, *grid, '--knn', classifier])
    again = json.loads((tmp_path / 'out' / 'sweep.json').read_text())
    assert again['cells'][1]['mIoU'] == 99.0 and len(again['cells']) == 5
    layers, variance = again['cells'][1]['layers'], again['cells'][1]['variance']
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert f'variance={variance:g}, alpha=8, layers={layers}' in line
    # Other weights: everything starts anew.
    state = torch.load(checkpoint)
    torch.save({key: 2 * value for key, value in state.items()}, checkpoint)
    main([*common, '--variance', '4', '--alpha', '8', '--layers', 'last'])
    assert "['mIoU'] start anew" in capsys.readouterr().out
    other = json.loads((tmp_path / 'out' / 'sweep.json').read_text())
    assert 99.0 not in [cell.get('mIoU') for cell in other['cells']]
    assert sum('mIoU' in cell for cell in other['cells']) == 2


def test_the_line_is_a_config(files, tmp_path):
    config, _, _ = files
    cell = Cell(2.5, 6.0, (0, 1), 'image')
    path = tmp_path / 'best.py'
    path.write_text(f"_base_ = ['{config}']\n{config_line(cell)}\n")
    backbone = Config.fromfile(path).model.backbone
    backbone.backbone.init_cfg = None
    gaugs = [block.attn.gaug for block in MODELS.build(backbone).blocks]
    assert [(g.variance.item(), g.alpha.item(), g.units) for g in gaugs] == [(2.5, 6, 'image')] * 2
    assert 'no setting is better' in config_line(Cell())
    results = {Cell(): dict(mIoU=2.0), cell: dict(mIoU=2.0)}
    assert best_of(results, [Cell(), cell]).is_plain


def test_the_strength_of_a_trained_gaug(scenes, tmp_path, capsys):
    cfg = in_context_config(scenes, tmp_path / 'run')
    config = write(cfg, tmp_path / 'locat.py')
    model = MODELS.build(dict(TINY))
    torch.save(model.state_dict(), tmp_path / 'locat.pth')
    args = [config, str(tmp_path / 'locat.pth'), '--out', str(tmp_path)]
    with pytest.raises(ValueError, match='has GAug: its strength is swept by --alpha-scale'):
        main(args)
    main([*args, '--alpha-scale', '1', '2', '3'])
    cells = json.loads((tmp_path / 'sweep.json').read_text())['cells']
    assert [cell['alpha_scale'] for cell in cells] == [None, 2.0, 3.0]
    printed = capsys.readouterr().out
    assert '× 3' in printed


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        *(('all', (0, 1, 2, 3)), ('last', (3,)), ('last2', (2, 3)), ('first2', (0, 1))),
        *(('1:3', (1, 2)), ('2:', (2, 3)), (':1', (0,)), ('0,3', (0, 3))),
    ],
)
def test_names_of_layers(name, expected):
    assert layers_named(name, 4) == expected


@pytest.mark.parametrize('name', ['4', 'last5', '3:9', '2:2', '1,1', 'middle', '-1', ''])
def test_names_of_no_layers(name):
    with pytest.raises(ValueError, match='means none of the 4 attention layers'):
        layers_named(name, 4)


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['c.py', '--prefix', 'x'], '--prefix needs CHECKPOINT'),
        (['c.py', '--classifier', 'x.py'], '--classifier needs CHECKPOINT'),
        (['c.py', '--units', 'pixels'], 'invalid choice'),
    ],
)
def test_wrong_arguments(args, message, capsys):
    with pytest.raises(SystemExit):
        main(args)
    assert message in capsys.readouterr().err


def test_a_metric_that_a_run_does_not_ask_for_stays(tmp_path):
    cells, file = [Cell()], tmp_path / 'sweep.json'
    both = {'mIoU': lambda cell: dict(mIoU=20.0), 'top1': lambda cell: {'accuracy/top1': 80.0}}
    Sweep(file, dict(mIoU='a', top1='b')).run(cells, both)
    changed = Sweep(file, dict(mIoU='changed'))
    assert changed.outdated == ['mIoU']
    changed.run(cells, {'mIoU': lambda cell: dict(mIoU=30.0)})
    again = Sweep(file, dict(mIoU='changed', top1='b'))
    assert not again.outdated and again.results == {Cell(): dict(mIoU=30.0, top1=80.0)}
    assert Sweep(file, dict(mIoU='changed', top1='other')).outdated == ['top1']
