# digit_scenes' objects again, four epochs from a classifier that is trained already.
_base_ = ['demo_classify.py']

model = dict(
    init_cfg=dict(type='Pretrained', checkpoint='work_dirs/demo/vit/seed0/classify/epoch_8.pth'),
)
optim_wrapper = dict(
    optimizer=dict(lr=3e-4),
    # What is new learns faster than what is trained.
    paramwise_cfg=dict(custom_keys={'.gaug.': dict(lr_mult=10.0)}),
)
train_cfg = dict(max_epochs=4)
