_base_ = [
    '../_base_/models/upernet.py',
    __import__('locat_mm').config_path('mmseg::_base_/datasets/synapse.py'),
    '../_base_/schedules/upernet_160k.py',
    '../_base_/runtime_segment.py',
]
dataset_source = 'Synapse: docs/medical.md says where it is and how to convert it.'

model = dict(
    data_preprocessor=dict(size=(224, 224)),
    backbone=dict(
        type='locat_mm.LocAtViT',
        arch='tiny',
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint='hf-hub:sinahmr/locatvit_tiny'),
    ),
    neck=dict(embed_dim=192),
    decode_head=dict(
        in_channels=[192, 192, 192, 192],
        num_classes=9,
        loss_decode=[
            dict(type='CrossEntropyLoss', loss_name='loss_ce', loss_weight=1.0),
            # ignore_index=0: of the foreground alone. Background would outweigh it.
            dict(
                type='DiceLoss',
                loss_name='loss_dice',
                use_sigmoid=False,
                ignore_index=0,
                loss_weight=1.0,
            ),
        ],
    ),
    auxiliary_head=dict(in_channels=192, num_classes=9),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
# 40k iterations, 4 GPUs × 6 images
param_scheduler = _base_.param_scheduler
param_scheduler[-1].end = 40000
train_cfg = dict(max_iters=40000, val_interval=4000)
auto_scale_lr = dict(base_batch_size=24)
default_hooks = dict(checkpoint=dict(interval=4000))
