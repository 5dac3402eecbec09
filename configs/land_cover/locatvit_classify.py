_base_ = [
    '../_base_/models/demo_classifier.py',
    '../_base_/datasets/land_cover_tiles.py',
    '../_base_/schedules/demo_classify_8e.py',
    '../_base_/runtime_demo_pretrain.py',
]

model = dict(
    data_preprocessor=dict(num_classes=7, mean=[119.5, 112.8, 87.5], std=[73.5, 68.2, 76.6]),
    backbone=dict(type='locat_mm.LocAtViT', img_size=32, patch_size=4),
    head=dict(num_classes=7),
)
train_cfg = dict(max_epochs=5, val_interval=5)
