"""A hub cache laid out as huggingface_hub lays it out, and small models of golden weights."""

import hashlib
import os
from pathlib import Path

import torch
from mmengine.config import ConfigDict
from safetensors.torch import save

from locat_mm.registry import MODELS

from .golden import Golden

COMMIT = '0123456789abcdef0123456789abcdef01234567'


class Hostile:
    """Pickles as a call that makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.path,)


class HubCache:
    """``models--OWNER--NAME/{blobs,refs,snapshots}``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, repo, content, file='model.safetensors', commit=COMMIT, revision='main') -> Path:
        """Put bytes, or a state dict as safetensors, into the cache; return the file."""
        content = content if isinstance(content, bytes) else save(content)
        root = self.folder / f'models--{repo.replace("/", "--")}'
        blob = root / 'blobs' / hashlib.sha256(content).hexdigest()
        path = root / 'snapshots' / commit / file
        for parent in (blob.parent, path.parent, root / 'refs'):
            parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(content)
        path.symlink_to(Path('..', '..', 'blobs', blob.name))
        (root / 'refs' / revision).write_text(commit)
        return path


def classifier_cfg(golden: Golden, **backbone) -> dict:
    """LocAtViT with PRR, as of ``Golden('locatvit')``."""
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=golden.backbone_cfg(out_type='raw', **backbone),
        neck=dict(type='locat_mm.PatchRepresentationRefinement', num_heads=3),
        head=dict(type='mmpretrain.LinearClsHead', num_classes=7, in_channels=24),
        data_preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', mean=[127.5], std=[127.5]),
    )


def segmentor_cfg(golden: Golden, num_classes=4, **backbone) -> dict:
    return dict(
        type='mmseg.EncoderDecoder',
        backbone=golden.backbone_cfg(out_type='featmap', final_norm=False, frozen=True, **backbone),
        decode_head=dict(
            type='locat_mm.LinearSegHead', in_channels=24, channels=8, num_classes=num_classes
        ),
        train_cfg=None,
        test_cfg=dict(mode='whole'),
    )


def build(cfg: dict) -> torch.nn.Module:
    return MODELS.build(ConfigDict(cfg)).eval()


def assert_logits(model: torch.nn.Module, golden: Golden) -> None:
    size = golden.sizes[0]
    logits = model.eval()(golden[f'in/{size}'])
    torch.testing.assert_close(logits, golden[f'logits/{size}'], rtol=0, atol=1e-5)
