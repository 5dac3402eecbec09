_base_ = [
    '../../_base_/models/demo_dino.py',
    '../../_base_/datasets/digit_objects_dino.py',
    '../../_base_/schedules/demo_dino_8e.py',
    '../../_base_/runtime_demo_pretrain.py',
]

model = dict(
    backbone=dict(type='locat_mm.LocAtViT'),
)
# k-NN reads the class token after PRR, as in the authors' code.
val_cfg = dict(features='neck')
test_cfg = dict(features='neck')
default_hooks = dict(logger=dict(interval=50))
