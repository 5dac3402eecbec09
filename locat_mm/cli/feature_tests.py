"""Turns configs into tests of frozen features: in-context segmentation and k-NN."""

from typing import Any

from mmengine.config import Config

__all__ = ['set_in_context_weights', 'use_knn_loop']

_LOOPS = ('KNNTestLoop', 'KNNValLoop')


def set_in_context_weights(
    cfg: Config, checkpoint: str | None = None, prefix: str | None = None
) -> None:
    """Name the backbone's weights in the config of an ``InContextSegmentor``.

    Args:
        cfg: changed in place.
        checkpoint: anything that ``init_cfg`` takes; None keeps the config's.
        prefix: of the backbone's keys in the checkpoint.

    Raises:
        ValueError: if the config has another model, or no weights are given.
    """
    if str(cfg.model.get('type')).rpartition('.')[2] != 'InContextSegmentor':
        raise ValueError(f'{cfg.filename} has no InContextSegmentor, but {cfg.model.get("type")}')
    host = cfg.model.backbone
    while 'backbone' in host:  # locat_mm.LocAt around the host
        if checkpoint:
            host.pop('init_cfg', None)
        host = host.backbone
    if checkpoint:
        host.pop('pretrained', None)
        init = dict(type='Pretrained', checkpoint=checkpoint)
        host.init_cfg = {**init, **(dict(prefix=prefix) if prefix else {})}
    parts = (host, cfg.model.backbone)
    if not any(part.get('init_cfg') or part.get('pretrained') for part in parts):
        raise ValueError(f'{cfg.filename} names no weights in model.backbone: give CHECKPOINT')


def use_knn_loop(cfg: Config, loop: dict[str, Any] | None = None) -> None:
    """Replace a config's test by a k-NN evaluation; a k-NN loop of the config keeps its settings.

    Args:
        cfg: of a classifier or a self-supervised model, changed in place.
        loop: settings of :class:`locat_mm.evaluation.KNNTestLoop` that replace the config's.

    Raises:
        ValueError: if the config does not name the images.
    """
    loop = dict(loop or {})
    own = [cfg[key] for key in ('test_cfg', 'val_cfg') if _is_knn(cfg.get(key))]
    loader = cfg.get('test_dataloader') or cfg.get('val_dataloader')
    if not loader:
        raise ValueError(f'{cfg.filename} has neither test_dataloader nor val_dataloader')
    if own:
        loop = {**own[0], **loop}
    else:
        loop['bank_dataloader'] = _bank_of(cfg, loader)
    cfg.test_dataloader = loader
    cfg.test_cfg = {**loop, 'type': 'locat_mm.KNNTestLoop'}
    evaluators = [cfg.get(key) for key in ('test_evaluator', 'val_evaluator')]
    is_ours = [e for e in evaluators if 'KNNAccuracy' in str((e or {}).get('type'))] if own else []
    cfg.test_evaluator = is_ours[0] if is_ours else dict(type='locat_mm.KNNAccuracy')


def _is_knn(loop: dict | None) -> bool:
    return str((loop or {}).get('type')).rpartition('.')[2] in _LOOPS


def _bank_of(cfg: Config, loader: dict) -> dict:
    """The loader of the training images: each once, in order, in the test pipeline."""
    dataset = (cfg.get('train_dataloader') or {}).get('dataset')
    if not dataset or 'pipeline' not in dataset:
        raise ValueError(
            f'{cfg.filename} has no plain train_dataloader.dataset to be the bank: name one in '
            "test_cfg=dict(type='locat_mm.KNNTestLoop', bank_dataloader=...)"
        )
    return {
        **loader,
        'sampler': dict(type='DefaultSampler', shuffle=False),
        'drop_last': False,
        'dataset': {**dataset, 'pipeline': loader['dataset']['pipeline']},
    }
