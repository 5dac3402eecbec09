"""tools/misc/reproduce.py: its plan, its estimates, its order and its page, without training."""

import json
import re
import runpy
import shlex
from pathlib import Path

import pytest
import reproduce
import reproduce_costs
import results
from paper import paper_tables

from locat_mm.helpers import cpu_name
from tests.support import ROOT
from tests.support.paper_data import write_ade20k, write_imagenet

TINY = ['--table', 'main', '--rows', 'vit_tiny', 'locatvit_tiny']
TASKS = ('imagenet', 'ade20k')
ORDER = [
    f'{model}_tiny_{task}, seed 0, {kind}'
    for model in ('vit', 'locatvit')
    for task in TASKS
    for kind in ('training', 'test')
]
BATCH = 'train_dataloader.batch_size'
PARAMETERS = {'vit': 5_717_416, 'locatvit': 5_719_756}  # docs/costs.md
DECODER = 512 * 193 + 2 * 512 + 150 * 513  # two layers of 1×1 and a norm between them


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data():
    write_imagenet(Path('data/imagenet'), 1)
    write_ade20k(Path('data/ade/ADEChallengeData2016'), 1)


@pytest.fixture
def started(monkeypatch):
    """Labels of the commands that were started. They write what the tools would write."""
    labels: list[str] = []
    tools = {name: runpy.run_path(str(ROOT / 'tools' / f'{name}.py')) for name in ('train', 'test')}

    def run_command(label, log, command):
        labels.append(label)
        script = Path(command[1]).stem
        args = [a for n, a in enumerate(command[2:]) if n != 1 + (script == 'dist_test')]
        parsed = tools[script.removeprefix('dist_')]['parse_args'](args)
        if script == 'dist_test':
            assert Path(parsed.checkpoint).exists() and parsed.out_item == 'metrics'
            metric = 'accuracy/top1' if 'imagenet' in parsed.config else 'mIoU'
            Path(parsed.out).write_text(json.dumps({metric: 40 + len(labels) / 100}))
            return
        assert parsed.resume == 'auto'
        log.write_text('text\n    GPU 0,1: A card\n')
        start = parsed.cfg_options.get('model.backbone.init_cfg.checkpoint')
        assert (start is None) == ('imagenet' in parsed.config)
        if start is not None:
            assert Path(start).exists()
        name = 'epoch_300.pth' if start is None else 'iter_20000.pth'
        (Path(parsed.work_dir) / name).touch()

    monkeypatch.setattr(reproduce, 'run_command', run_command)
    return labels


def planned(capsys, *args):
    """What a dry run prints, and its commands as lists."""
    reproduce.main(['--dry-run', *args])
    printed = capsys.readouterr().out
    return printed, [
        shlex.split(line) for line in re.findall('^ +(bash .*)', printed, re.MULTILINE)
    ]


def test_rows_are_the_papers_and_have_configs():
    tables = paper_tables()
    assert [len(tables[name]) for name in ('main', 'ablation')] == [10, 14]
    for name, rows in tables.items():
        for row in rows:
            tasks = (*TASKS, 'pcontext', 'cocostuff') if name == 'main' else TASKS
            assert all((ROOT / 'configs' / f'{row.stem}_{task}.py').is_file() for task in tasks)
            assert (name == 'main') == (len(row.numbers) == 4)
    assert len({row.stem for rows in tables.values() for row in rows}) == 20
    # README has the main numbers of ViT and LocAtViT, and the ablation's page those of its rows.
    readme = (ROOT / 'README.md').read_text()
    by_stem = {row.stem: row.numbers for row in [*tables['ablation'], *tables['main']]}
    for size in ('tiny', 'base'):
        plain, locat = (by_stem[stem] for stem in (f'vit/vit_{size}', f'locat/locatvit_{size}'))
        (line,) = re.findall(rf'^\| ViT-{size.title()} → .*', readme, re.MULTILINE)
        expected = [
            number
            for metric in ('miou', 'pcontext', 'cocostuff', 'top1')
            for number in (plain[metric], locat[metric])
        ]
        assert [float(number) for number in re.findall(r'\d+\.\d+', line)] == expected
    page = (ROOT / 'configs' / 'ablation' / 'README.md').read_text()
    for name in ('vit_gaug', 'vit_prr', 'vit_gap', 'vit_nopos', 'locatvit_nopos'):
        (line,) = re.findall(rf'^\| `{name}` \| (\d.*) \|', page, re.MULTILINE)
        given = [
            by_stem[f'ablation/{name}_{s}'][m] for m in ('miou', 'top1') for s in ('tiny', 'base')
        ]
        assert [float(number) for number in line.split(' | ')] == given


def test_the_plan_has_every_command_in_order_and_writes_nothing(capsys):
    printed, commands = planned(capsys, *TINY)
    assert re.findall(r'^ *\d+\. (.*)', printed, re.MULTILINE) == ORDER
    folder = 'work_dirs/reproduce/locatvit_tiny/seed0'
    config = ROOT / 'configs' / 'locat' / 'locatvit_tiny_ade20k.py'
    assert [Path(part).resolve() for part in commands[6][1:3]] == [
        ROOT / 'tools' / 'dist_train.sh',
        config,
    ]
    assert commands[6][3:] == [
        *('8', '--work-dir', f'{folder}/ade20k', '--resume', '--cfg-options'),
        *('randomness.seed=0', 'train_dataloader.batch_size=4'),
        f'model.backbone.init_cfg.checkpoint={folder}/imagenet/epoch_300.pth',
    ]
    assert commands[7][3:] == [
        *(f'{folder}/ade20k/iter_20000.pth', '8', '--work-dir', f'{folder}/ade20k/test'),
        *('--out', f'{folder}/ade20k/metrics.json', '--out-item', 'metrics'),
    ]
    assert '375,300 iterations, hours unknown (--measure); checkpoints: 0.27 GB' in printed
    assert '0 of 8 steps are done.\nTrainings to do: 4, none of them measured.' in printed
    assert 'missing: data/imagenet/train, data/imagenet/val, data/ade/' in printed
    assert not list(Path().iterdir())


def test_disk_space_is_that_of_weights_and_averages(capsys):
    printed, _ = planned(capsys, *TINY)
    pretraining = sum(4 * 12 * count for count in PARAMETERS.values())
    backbones = sum(count - 193_000 for count in PARAMETERS.values())  # without the classifier
    decoding = 4 * 4 * (backbones + 2 * DECODER) + 2 * 4 * 8 * DECODER
    assert f'Checkpoints: {(pretraining + decoding) / 1e9:.2f} GB;' in printed


def test_hours_are_measured_seconds_or_a_lower_bound(capsys):
    file = Path('work_dirs/reproduce/costs.json')
    file.parent.mkdir(parents=True)
    costs = dict(
        vit_tiny_imagenet=dict(seconds=0.25, setting=[8, 'train_dataloader.batch_size=128']),
        vit_tiny_ade20k=dict(seconds=0.5, setting=[4, 'train_dataloader.batch_size=8']),
    )
    file.write_text(json.dumps(costs))
    printed, _ = planned(capsys, *TINY[:-1])
    assert '375,300 iterations, 0.250 s each: 26.06 h, 208.50 GPU-hours;' in printed
    assert '20,000 iterations, hours unknown' in printed
    assert 'Trainings to do: 2, 1 of them measured, 26.06 h, 208.50 GPU-hours.' in printed
    # Measured with other GPUs. Then multiply-accumulates alone: 1.254 G forward for an image.
    printed, _ = planned(capsys, *TINY[:-1], '--tflops', '50', '--gpus', '4')
    assert '20,000 iterations, 0.500 s each: 2.78 h, 11.11 GPU-hours;' in printed
    least = float(re.search(r'least (\S+) h, \S+ GPU-hours, at 50 TFLOP/s on each', printed)[1])
    hours = 6 * 1.254e9 * 300 * 1251 * 1024 / (4 * 50e12) / 3600
    assert least == pytest.approx(hours, rel=3e-3)


def test_the_recipes_batch_is_shared(capsys):
    option = 'train_cfg.val_interval=7'
    _, commands = planned(capsys, *TINY[:-1], '--gpus', '2', '--decode-options', option)
    assert 'train_dataloader.batch_size=512' in commands[0]
    assert commands[2][-3:-1] == ['train_dataloader.batch_size=16', option]
    assert commands[3][-2:] == ['--cfg-options', option] and option not in commands[0]
    with pytest.raises(ValueError, match='3 GPUs cannot share .* a batch of 1024 images'):
        reproduce.main(['--dry-run', *TINY[:-1], '--gpus', '3'])
    _, commands = planned(capsys, *TINY[:-1], '--gpus', '3', '--cfg-options', f'{BATCH}=5')
    assert f'{BATCH}=5' in commands[0] and f'{BATCH}=5' in commands[2]


def test_a_failed_step_stops_and_a_second_start_goes_on(data, started, monkeypatch, capsys):
    other = 'env_cfg.cudnn_benchmark=True'
    run_command = reproduce.run_command

    def fail(label, log, command):
        if len(started) == 3:
            raise SystemExit(f'{label} failed (exit 1); its whole output: {log}')
        run_command(label, log, command)

    monkeypatch.setattr(reproduce, 'run_command', fail)
    with pytest.raises(SystemExit, match='4/8 .*seed0/ade20k/test.txt'):
        reproduce.main([*TINY, '--gpus', '2'])
    assert not Path('work_dirs/reproduce/results.md').exists()
    printed, _ = planned(capsys, *TINY, '--gpus', '2')
    assert printed.count('[done]') == 3 and '3 of 8 steps are done' in printed
    with pytest.raises(
        ValueError,
        match=rf'with the options \[\], not \[.{other}.\]: give the same',
    ):
        reproduce.main([*TINY, '--dry-run', '--gpus', '2', '--cfg-options', other])
    monkeypatch.setattr(reproduce, 'run_command', run_command)
    reproduce.main([*TINY, '--gpus', '2'])
    assert [label.partition(' ')[2] for label in started] == ORDER
    capsys.readouterr()
    reproduce.main([*TINY, '--gpus', '2'])
    assert len(started) == 8 and capsys.readouterr().out.count('already done') == 8


def test_the_page_has_the_papers_numbers_beside(data, started):
    reproduce.main(['--sizes', 'tiny', '--rows', *TINY[3:], '--gpus', '2', '--seeds', '2'])
    assert len(started) == 16 and 'seed 1' in started[8]
    page = Path('work_dirs/reproduce/results.md').read_text()
    lines = [[cell.strip() for cell in line.split('|')[1:-1]] for line in page.splitlines()]
    tables = [line for line in lines if line and line[0] in ('ViT-Tiny', 'LocAtViT-Tiny')]
    # The first test is the second command, and the 10th of the second seed: 40.02 and 40.10
    assert tables[0] == [
        'ViT-Tiny',
        '40.06 ± 0.06',
        '40.08 ± 0.06',
        '2',
        '5,717,416',
        '72.39 / 17.30',
    ]
    assert tables[1][-2:] == ['5,719,756', '73.94 / 23.47']
    ablation = [line for line in lines if line and line[0] in ('ViT, Tiny', 'LocAtViT, Tiny')]
    assert [line[1:] for line in ablation] == [line[1:] for line in tables]
    assert ['device', '2 × A card'] in lines and '**the paper' in page
    assert "the paper's top-1 / linear mIoU (%)" in page
    file = Path('work_dirs/reproduce/results.md')
    file.write_text(f'{page}\n<!-- results: ablation differences -->\n<!-- end -->\n')
    results.main(['--page', str(file), '--write'])
    assert (
        '| LocAtViT, Tiny minus ViT, Tiny | **+0.04 [+0.04, +0.04]** | **+0.04 [+0.04, +0.04]** |'
        in file.read_text()
    )


def test_missing_data_are_one_error(started):
    write_ade20k(Path('data/ade/ADEChallengeData2016'), 1)
    (Path('data/ade/ADEChallengeData2016/annotations/validation/ADE_valid_00000000.png')).unlink()
    Path('data/ade/ADEChallengeData2016/annotations/validation').rmdir()
    missing = 'data/imagenet/train, data/imagenet/val, data/ade/ADEChallengeData2016/annotations/'
    with pytest.raises(FileNotFoundError, match=f'{missing}validation\n') as error:
        reproduce.main(TINY)
    assert 'register at https://image-net.org' in str(error.value)
    assert 'docs/train.md, "Configs"' in str(error.value)
    with pytest.raises(FileNotFoundError, match='data/imagenet/train'):
        reproduce.main([*TINY, '--measure', '2'])
    assert not started


def test_a_measurement_keeps_seconds_of_each_config(data, monkeypatch, capsys):
    def run_command(label, log, command):
        args = command[command.index('--work-dir') :]
        scalars = Path(args[1]) / '2026' / 'vis_data' / 'scalars.json'
        scalars.parent.mkdir(parents=True)
        scalars.write_text('{"lr": 0.1, "time": 0.5}\n')
        measured.append((label, command))

    measured: list = []
    monkeypatch.setattr(reproduce_costs, 'run_command', run_command)
    reproduce.main([*TINY, '--measure', '10'])
    assert [label for label, _ in measured] == [
        f'{model}_tiny_{task}, 10 iterations' for model in ('vit', 'locatvit') for task in TASKS
    ]
    assert 'train_dataloader.dataset.indices=10240' in measured[0][1]
    assert 'log_processor.window_size=5' in measured[0][1] and '--no-validate' in measured[0][1]
    assert {'train_cfg.max_iters=10', 'model.backbone.init_cfg=None'} <= {*measured[1][1]}
    printed = capsys.readouterr().out
    assert '4 of them measured' in printed and '20,000 iterations, 0.500 s each: 2.78 h' in printed
    reproduce.main([*TINY, '--measure'])
    assert len(measured) == 4


@pytest.mark.parametrize(
    'args, message',
    [
        (['--seeds', '0'], '--seeds must be at least 1, got 0'),
        (['--measure', '1'], '--measure must be at least 2, got 1'),
        (['--tflops', '-3'], '--tflops must be positive, got -3'),
        (['--decode', 'pcontext'], r"the ablation has no configs of \['pcontext'\]"),
        (['--rows', 'swin_base'], "argument --rows: invalid choice: 'swin_base'"),
        (['--table', 'main', '--rows', 'vit_gap_tiny'], r'no row of \[.main.\]'),
    ],
)
def test_mistakes_in_arguments_are_named(args, message, capsys):
    with pytest.raises(SystemExit):
        reproduce.main(args)
    assert re.search(message, capsys.readouterr().err)


def test_without_a_gpu_the_device_is_the_cpu(tmp_path):
    class training:
        log = tmp_path / 'log'

    training.log.write_text('    CUDA available: False\n')
    assert reproduce.device_of(training) == cpu_name()
