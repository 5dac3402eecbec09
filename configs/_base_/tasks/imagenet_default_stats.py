# ImageNet-1K pretraining with ImageNet's own mean and std (Swin, RoPEViT); all else as imagenet.py.
_base_ = ['imagenet.py']

mean = [123.675, 116.28, 103.53]
std = [58.395, 57.12, 57.375]
# Pixels are BGR until the preprocessor turns them; the fill is the mean.
fill = [104, 116, 124]
rand_augment = dict(
    type='RandomChoice',
    transforms=[
        [{**step, 'hparams': {**step.hparams, 'pad_val': fill}}]
        for (step,) in _base_.rand_augment.transforms
    ],
)
random_erasing = {**_base_.random_erasing, 'fill_color': fill, 'fill_std': std[::-1]}
train_pipeline = [
    *_base_.train_pipeline[:-3],
    rand_augment,
    random_erasing,
    *_base_.train_pipeline[-1:],
]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
model = dict(data_preprocessor=dict(mean=mean, std=std))
