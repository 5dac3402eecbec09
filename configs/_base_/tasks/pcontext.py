# Linear decoding on PASCAL Context 59: the authors' recipe.
_base_ = ['../datasets/pascal_context_59.py', '../linear_decoding.py']

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes),
)
