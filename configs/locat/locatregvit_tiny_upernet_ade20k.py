_base_ = [
    '../_base_/models/upernet.py',
    '../_base_/datasets/ade20k.py',
    '../_base_/schedules/upernet_160k.py',
    '../_base_/runtime_segment.py',
]

model = dict(
    backbone=dict(
        type='locat_mm.LocAtViT',
        arch='tiny',
        num_registers=4,
        drop_path_rate=0.1,
        init_cfg=dict(checkpoint='work_dirs/locatregvit_tiny_imagenet/epoch_300.pth'),
    ),
    neck=dict(embed_dim=192),
    decode_head=dict(in_channels=[192, 192, 192, 192]),
    auxiliary_head=dict(in_channels=192),
)
optim_wrapper = dict(paramwise_cfg=dict(layer_decay_rate=0.65))
train_dataloader = dict(batch_size=2)  # 8 GPUs × 2 images
default_hooks = dict(checkpoint=dict(interval=16000))
