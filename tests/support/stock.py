"""The configs that ship inside mmseg and mmpretrain, inherited as a user would and made small."""

from pathlib import Path
from typing import Any

import mmpretrain
import mmseg
import torch
from mmengine.config import Config, ConfigDict
from mmengine.structures import PixelData
from mmpretrain.registry import MODELS as CLASSIFIERS
from mmpretrain.structures import DataSample
from mmseg.structures import SegDataSample
from torch import Tensor

TOOLS = {p.__name__: Path(p.__file__).parent / '.mim' / 'tools' for p in (mmpretrain, mmseg)}
CONFIGS = {name: tools.with_name('configs') for name, tools in TOOLS.items()}

#: One config of every kind: (package, name).
KINDS = (
    ('mmpretrain', 'vision_transformer/vit-base-p16_64xb64_in1k'),
    ('mmpretrain', 'deit/deit-small_4xb256_in1k'),
    ('mmpretrain', 'deit/deit-base-distilled_16xb64_in1k'),
    ('mmpretrain', 'swin_transformer/swin-tiny_16xb64_in1k'),
    ('mmseg', 'vit/vit_vit-b16-ln_mln_upernet_8xb2-160k_ade20k-512x512'),
    ('mmseg', 'vit/vit_deit-s16_upernet_8xb2-80k_ade20k-512x512'),
    ('mmseg', 'swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512'),
    ('mmseg', 'setr/setr_vit-l_pup_8xb2-160k_ade20k-512x512'),
    ('mmseg', 'setr/setr_vit-l_mla_8xb2-160k_ade20k-512x512'),
    ('mmseg', 'segmenter/segmenter_vit-s_mask_8xb1-160k_ade20k-512x512'),
    ('mmseg', 'beit/beit-base_upernet_8xb2-160k_ade20k-640x640'),
    ('mmseg', 'mae/mae-base_upernet_8xb2-amp-160k_ade20k-512x512'),
)

#: Folders of configs whose backbones GAug can enter, and what in them is no such model.
FOLDERS = {
    'mmpretrain': ('vision_transformer', 'deit', 'deit3', 'swin_transformer', 'eva02', 'clip'),
    'mmseg': ('vit', 'swin', 'setr', 'segmenter', 'beit', 'mae', 'dpt'),
}
_NO_SUCH_MODEL = (
    'zeroshot',  # two towers
    'lora',  # needs peft
    'headless',  # trains nothing
    'ipu',  # another accelerator's optimizer
    'levir',  # mmengine refuses its data_preprocessor, with any backbone
)


def every_other_stock_config() -> list[tuple[str, str]]:
    """All of ``FOLDERS`` that are not in ``KINDS``."""
    names = [
        (package, f'{folder}/{path.stem}')
        for package, folders in FOLDERS.items()
        for folder in folders
        for path in sorted((CONFIGS[package] / folder).glob('*.py'))
        if not any(word in path.stem for word in _NO_SUCH_MODEL)
    ]
    return [name for name in names if name not in KINDS]


#: Of images for segmentation, rows and columns; classifiers keep the size they are built for.
SIZE = (96, 64)

#: What a width is called in necks, heads and tables of architectures.
_WIDTHS = {
    *('channels', 'in_channels', 'out_channels', 'mla_channels', 'post_process_channels'),
    *('embed_dim', 'embed_dims', 'feedforward_channels', 'hidden_dim'),
}


def inherit(
    folder: Path, package: str, name: str, body: str, scoped: bool = True, file: str = 'mine'
) -> Path:
    """Write a user's config: ``body`` over a stock one. ``LOCAT.`` in it is this package.

    Scoped names need nothing else, bare names the import.
    """
    imports = '' if scoped else "custom_imports = dict(imports=['locat_mm'])\n"
    body = body.replace('LOCAT.', 'locat_mm.' if scoped else '')
    path = folder / f'{file}.py'
    path.write_text(f"_base_ = '{CONFIGS[package] / name}.py'\n{imports}{body}")
    return path


def host_of(cfg: Config) -> ConfigDict:
    backbone = cfg.model.backbone
    return backbone.get('backbone', backbone)


def shrink(cfg: Config) -> Config:
    """A 16th of every width and fewer blocks, in place; heads, windows and image sizes stay."""
    host = host_of(cfg)
    # What would be downloaded.
    cfg.model.pop('pretrained', None)
    host.pop('init_cfg', None)
    if 'drop_path_rate' in host:  # would leave out branches, and their gradients, by chance
        host.drop_path_rate = 0.0
    sizes = host
    if cfg.default_scope == 'mmpretrain':
        host.arch = CLASSIFIERS.get(host.type).arch_zoo[host.arch]
        sizes = host.arch
    image_channels = host.pop('in_channels', 3)
    _narrow(sizes)
    host.in_channels = image_channels
    if 'depths' in sizes:
        sizes['depths'] = [2, 1, 1, 1]  # a shifted window among them
    else:
        sizes['num_layers'] = 4
        if 'out_indices' in host:
            host.out_indices = (0, 1, 2, 3)
    if cfg.default_scope == 'mmseg':
        cfg.model.data_preprocessor.size = SIZE
    if host.type in ('BEiT', 'MAE'):  # their relative position bias is for one size
        host.img_size = SIZE
    for part in ('neck', 'head', 'decode_head', 'auxiliary_head'):
        pieces = cfg.model.get(part) or []
        for piece in [pieces] if isinstance(pieces, dict) else pieces:
            _narrow(piece)
    return cfg


def _narrow(sizes: dict[str, Any]) -> None:
    for name in _WIDTHS & set(sizes):
        width = sizes[name]
        sizes[name] = width // 16 if isinstance(width, int) else [w // 16 for w in width]


def batch(cfg: Config) -> dict[str, Any]:
    """Two random images with labels, as the data loader hands them over."""
    host = host_of(cfg)
    size = SIZE if cfg.default_scope == 'mmseg' else (host.get('img_size', 224),) * 2
    images = torch.randint(256, (2, host.in_channels, *size), dtype=torch.uint8)
    if cfg.default_scope == 'mmpretrain':
        return dict(inputs=images, data_samples=[DataSample().set_gt_label(i) for i in (0, 99)])
    samples = []
    for _ in images:
        samples.append(SegDataSample(gt_sem_seg=PixelData(data=torch.randint(2, (1, *size)))))
        samples[-1].set_metainfo(dict(img_shape=size, ori_shape=size))
    return dict(inputs=list(images), data_samples=samples)


def refined(x: Tensor, num_heads: int) -> Tensor:
    """The paper's PRR of tokens ``[B, N, C]``, head by head: ``softmax(x xT / sqrt(d)) x``."""
    heads = []
    for part in x.chunk(num_heads, dim=2):
        logits = part @ part.transpose(1, 2) / part.shape[2] ** 0.5
        heads.append(logits.softmax(dim=2) @ part)
    return torch.cat(heads, dim=2)
