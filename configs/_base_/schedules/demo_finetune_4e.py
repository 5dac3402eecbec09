# Four more epochs for a trained classifier, with a small learning rate.
_base_ = ['demo_classify_8e.py']

optim_wrapper = dict(
    optimizer=dict(lr=3e-4),
    # The new GAug parameters learn faster than the trained ones.
    paramwise_cfg=dict(custom_keys={'.gaug.': dict(lr_mult=10.0)}),
)
train_cfg = dict(max_epochs=4)
