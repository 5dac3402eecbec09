_base_ = [
    '../_base_/models/upernet.py',
    __import__('locat_mm').config_path('mmseg::_base_/datasets/loveda.py'),
    '../_base_/schedules/upernet_160k.py',
    '../_base_/runtime_segment.py',
]
dataset_source = 'LoveDA: docs/satellite.md says where it is and how to convert it.'

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        type='locat_mm.LocAtViT',
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint='hf-hub:sinahmr/locatvit_tiny'),
    ),
    neck=dict(embed_dim=192),
    decode_head=dict(in_channels=[192, 192, 192, 192], num_classes=7),
    auxiliary_head=dict(in_channels=192, num_classes=7),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
# 80k iterations, 4 GPUs × 4 images
param_scheduler = _base_.param_scheduler
param_scheduler[-1].end = 80000
train_cfg = dict(max_iters=80000, val_interval=8000)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(checkpoint=dict(interval=8000))
