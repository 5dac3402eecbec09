# UPerNet on ADE20K, finetuned end to end, 8 GPUs × 2 images.
_base_ = ['../datasets/ade20k.py', '../upernet.py']

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    decode_head=dict(num_classes=_base_.num_classes),
    auxiliary_head=dict(num_classes=_base_.num_classes),
)
train_dataloader = dict(batch_size=2)
default_hooks = dict(checkpoint=dict(interval=16000))
