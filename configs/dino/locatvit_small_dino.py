_base_ = [
    '../_base_/models/dino.py',
    '../_base_/datasets/imagenet_dino.py',
    '../_base_/schedules/dino_100e.py',
    '../_base_/runtime_pretrain.py',
]

model = dict(
    backbone=dict(type='locat_mm.LocAtViT', arch='small', drop_path_rate=0.1),
    neck=dict(num_heads=6),
    head=dict(in_channels=384),
)
# k-NN reads the class token after PRR, as in the authors' code.
val_cfg = dict(features='neck')
test_cfg = dict(features='neck')
