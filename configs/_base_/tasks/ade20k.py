# Linear decoding on ADE20K: the authors' recipe.
_base_ = ['../datasets/ade20k.py', '../linear_decoding.py']

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes),
)
