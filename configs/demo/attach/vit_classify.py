_base_ = [
    '../../_base_/models/demo_classifier.py',
    '../../_base_/datasets/digit_objects.py',
    '../../_base_/schedules/demo_classify_8e.py',
    '../../_base_/runtime_demo_pretrain.py',
]

model = dict(
    backbone=dict(type='locat_mm.LocAtViT', gaug=False, out_type='cls_token'),
    neck=None,
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/vit/seed0/classify/epoch_8.pth'),
)
# Four more epochs for a trained classifier, with a small learning rate.
optim_wrapper = dict(
    optimizer=dict(lr=3e-4),
    # The new GAug parameters learn faster than the trained ones.
    paramwise_cfg=dict(custom_keys={'.gaug.': dict(lr_mult=10.0)}),
)
train_cfg = dict(max_epochs=4)
