"""Text of a config for a user's own data, on the shipped bases."""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import config_path, load_config
from ..datasets import ClassFolder, MaskFolder

__all__ = ['TASKS', 'Length', 'Model', 'choose_length', 'config_text', 'find_model', 'split_file']


@dataclass(frozen=True)
class Task:
    """What is trained.

    Args:
        description: for the first line of the config.
        leaf: end of the names of shipped configs whose model is taken.
        bases: of the new config.
    """

    description: str
    leaf: str
    bases: tuple[str, ...]


TASKS = {
    'decode': Task(
        'a linear decoder on a frozen backbone',
        'ade20k',
        ('models/linear_decoder', 'datasets/folder', 'schedules/decode_20k', 'runtime_segment'),
    ),
    'upernet': Task(
        'UPerNet, with the backbone fine-tuned',
        'upernet_ade20k',
        ('models/upernet', 'datasets/folder', 'schedules/upernet_160k', 'runtime_segment'),
    ),
    'classify': Task(
        'a classifier, fine-tuned',
        'imagenet',
        ('models/classifier', 'datasets/folder_classify', 'schedules/finetune', 'runtime_pretrain'),
    ),
}


@dataclass
class Model:
    """A shipped model.

    Args:
        settings: what differs from the base of the task, without the number of classes.
        optim_wrapper: as ``settings``.
        weights: of the authors, or None.
    """

    settings: dict
    optim_wrapper: dict
    weights: str | None


def find_model(name: str, task: str) -> Model:
    """Read the settings of a model from its shipped config.

    Args:
        name: family and size as in the names of the configs: ``locatvit_tiny``.
        task: a key of ``TASKS``.

    Raises:
        ValueError: if there is no such model for the task.
    """
    configs = Path(config_path('_base_/runtime_segment.py')).parents[1]
    ending = f'_{TASKS[task].leaf}.py'
    found = {
        path.name.removesuffix(ending): path
        for path in sorted(configs.glob(f'*/*{ending}'))
        if ending == '_upernet_ade20k.py' or 'upernet' not in path.name
        if 'in_context' not in path.name
    }
    if name not in found:
        close = difflib.get_close_matches(name, found, n=3)
        hint = f'Did you mean {" or ".join(close)}? ' if close else ''
        raise ValueError(f'no model {name!r} for {task}. {hint}There are: {", ".join(found)}')
    leaf = load_config(str(found[name]))
    model_base = load_config(config_path(f'_base_/{TASKS[task].bases[0]}.py')).model.to_dict()
    schedule = load_config(config_path(f'_base_/{TASKS[task].bases[2]}.py'))
    settings = _changes(leaf.model.to_dict(), model_base)
    optim = {}
    if task != 'classify':  # which has a schedule of its own
        optim = _changes(leaf.optim_wrapper.to_dict(), schedule.optim_wrapper.to_dict())
    decoder = found[name].with_name(f'{name}_ade20k.py')
    weights = load_config(str(decoder)).model.backbone.init_cfg.checkpoint
    return Model(settings, optim, weights if weights.startswith('hf-hub:') else None)


def _changes(new: dict, base: dict) -> dict:
    """What a config has to say beside its base."""
    changed: dict = {}
    for key, value in new.items():
        old = base.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            if set(old) - set(value):
                changed[key] = dict(_delete_=True, **value)
            elif value != old:
                changed[key] = _changes(value, old)
        elif key not in base or value != old:
            changed[key] = value
    assert set(base) <= set(new)
    return changed


@dataclass(frozen=True)
class Length:
    """How long to train.

    Args:
        batch_size: images of a step.
        steps: iterations, or epochs for a classifier.
        interval: of validation, in the same unit.
        words: the length, in words.
    """

    batch_size: int
    steps: int
    interval: int
    words: str


#: Largest batch, passes over the data, fewest and most iterations.
_LENGTHS = dict(decode=(16, 100, 300, 20_000), upernet=(8, 100, 2_000, 80_000))
#: Of the base; the config names others.
_SUFFIXES = dict(img_suffix='.jpg', seg_map_suffix='.png')


def choose_length(task: str, count: int) -> Length:
    """Choose batch size and length for a number of images to train on."""
    if task == 'classify':
        batch = min(max(count // 10, 8), 64, count)
        iterations = count // batch
        epochs = round(min(max(5_000 // iterations, 10), 100), -1)
        words = f'{epochs} epochs of {iterations} iterations'
        return Length(batch, epochs, epochs // 10, words)
    largest, passes, fewest, most = _LENGTHS[task]
    batch = max(min(largest, count // 10), min(4, count), 2)
    iterations = round(min(max(passes * count // batch, fewest), most), -2)
    words = f'{iterations} iterations, {iterations * batch / count:.0f} passes over {count} images'
    return Length(batch, iterations, iterations // 10, words)


def config_text(
    task: str,
    name: str,
    model: Model,
    weights: str | None,
    folder: MaskFolder | ClassFolder,
    classes: list[str],
    reduce_zero_label: bool,
    out: Path,
) -> str:
    """The config.

    Args:
        task: a key of ``TASKS``.
        name: of the model.
        model: its settings.
        weights: of the backbone; None for random ones.
        folder: the data.
        classes: their names.
        reduce_zero_label: whether value 0 of masks has no label.
        out: where the text will be written; the files of a split are beside it.
    """
    train, val = (len(folder.splits[split].names) for split in ('train', 'val'))
    length = choose_length(task, train)
    shared: dict = dict(
        data_root=str(folder.root.absolute()), metainfo=Code('dict(classes=classes)')
    )
    lines = [
        f'# {name}: {TASKS[task].description}. Data: {train} images to train on, {val} to '
        'validate on.',
        '_base_ = [',
        "    __import__('locat_mm').config_path(f'_base_/{name}.py')",
        f'    for name in {TASKS[task].bases!r}',
        ']',
        f'classes = {tuple(classes)!r}',
    ]
    if isinstance(folder, MaskFolder):
        meaning = 'has no label, 1 is' if reduce_zero_label else 'is'
        lines.append(
            f'reduce_zero_label = {reduce_zero_label}  # value 0 of a mask {meaning} {classes[0]!r}'
        )
        shared['reduce_zero_label'] = Code('reduce_zero_label')
        suffixes = dict(img_suffix=folder.image_suffix, seg_map_suffix=folder.mask_suffix)
        shared |= {key: value for key, value in suffixes.items() if value != _SUFFIXES[key]}
    lines.append(_assign('data', shared))
    for split in ('train', 'val'):
        part = folder.splits[split]
        changed: dict = {}
        if isinstance(folder, MaskFolder):
            if (part.images, part.masks) != (f'images/{split}', f'masks/{split}'):
                changed['data_prefix'] = dict(img_path=part.images, seg_map_path=part.masks)
        elif part.images != split:
            changed['data_prefix'] = part.images
        if folder.is_divided:
            changed['ann_file'] = str(split_file(out, split).absolute())
        dataset = {_POSITIONAL: Code('data'), **changed} if changed else Code('data')
        size = dict(batch_size=length.batch_size) if split == 'train' else {}
        lines.append(_assign(f'{split}_dataloader', dict(**size, dataset=dataset)))
    lines += ['test_dataloader = val_dataloader', _assign('model', _model(task, model, weights))]
    if model.optim_wrapper:
        lines.append(_assign('optim_wrapper', model.optim_wrapper))
    return '\n'.join([*lines, *_schedule(task, train, length)]) + '\n'


def split_file(out: Path, split: str) -> Path:
    """The list of the images of a random split."""
    return out.with_name(f'{out.stem}_{split}.txt')


def _model(task: str, model: Model, weights: str | None) -> dict:
    init = None if weights is None else dict(type='Pretrained', checkpoint=weights)
    backbone = {'type': None, 'arch': None, **model.settings['backbone'], 'init_cfg': init}
    settings = {**model.settings, 'backbone': backbone}
    heads = dict(
        decode=('decode_head',),
        upernet=('decode_head', 'auxiliary_head'),
        classify=('data_preprocessor', 'head'),
    )
    for key in heads[task]:
        settings[key] = {**settings.get(key, {}), 'num_classes': Code('len(classes)')}
    return settings


def _schedule(task: str, count: int, length: Length) -> list[str]:
    if task == 'classify':
        logged = min(count // length.batch_size, 100)
        return [
            f'# {length.words}.',
            _assign('train_cfg', dict(max_epochs=length.steps, val_interval=length.interval)),
            f'default_hooks = dict(logger=dict(interval={logged}))',
        ]
    scheduler = ['param_scheduler = [dict(_base_.param_scheduler[0], total_steps=max_iters)]']
    if task == 'upernet':
        warm_up = min(1500, length.steps // 10)
        scheduler = [
            'param_scheduler = [',
            f'    dict(_base_.param_scheduler[0], end={warm_up}),',
            f'    dict(_base_.param_scheduler[1], begin={warm_up}, end=max_iters),',
            ']',
        ]
    return [
        f'max_iters = {length.steps}  # {length.words.partition(", ")[2]}',
        *scheduler,
        f'train_cfg = dict(max_iters=max_iters, val_interval={length.interval})',
        f'default_hooks = dict(checkpoint=dict(interval={length.interval}))',
    ]


class Code(str):
    """A Python expression, written as it is."""


#: Key of an argument without a name.
_POSITIONAL = '*'


def _assign(name: str, value: dict) -> str:
    return f'{name} = {_format(value, len(name) + 3, 0)}'


def _format(value: Any, column: int, indent: int) -> str:
    """``dict(key=value)`` over several lines where it does not fit into one.

    Args:
        value: the settings.
        column: where the text begins in its line.
        indent: of that line.
    """
    if isinstance(value, Code):
        return value
    if not isinstance(value, Mapping):
        return repr(value)
    flat = ', '.join(_argument(key) + _format(item, 0, 0) for key, item in value.items())
    if '\n' not in flat and column + len(flat) + 7 <= 100:
        return f'dict({flat})'
    inner = indent + 4
    lines = [
        f'{" " * inner}{_argument(key)}{_format(item, inner + len(_argument(key)), inner)},\n'
        for key, item in value.items()
    ]
    return f'dict(\n{"".join(lines)}{" " * indent})'


def _argument(key: str) -> str:
    return '' if key == _POSITIONAL else f'{key}='
