_base_ = [
    '../_base_/models/linear_decoder.py',
    __import__('locat_mm').config_path('mmseg::_base_/datasets/potsdam.py'),
    '../_base_/schedules/decode_20k.py',
    '../_base_/runtime_segment.py',
]
dataset_source = 'Potsdam: docs/satellite.md says where it is and how to convert it.'

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    backbone=dict(
        type='locat_mm.LocAtViT',
        arch='tiny',
        init_cfg=dict(checkpoint='hf-hub:sinahmr/locatvit_tiny'),
    ),
    decode_head=dict(
        in_channels=192,
        num_classes=6,
        # cars and clutter are rare
        loss_decode=dict(class_weight=[1.0, 1.0, 1.0, 1.0, 2.0, 2.0]),
    ),
    test_cfg=dict(mode='slide', crop_size=(512, 512), stride=(341, 341)),
)
# 80k iterations, 4 GPUs × 4 images
param_scheduler = _base_.param_scheduler
param_scheduler[0].total_steps = 80000
train_cfg = dict(max_iters=80000, val_interval=8000)
auto_scale_lr = dict(base_batch_size=16)
default_hooks = dict(checkpoint=dict(interval=8000))
