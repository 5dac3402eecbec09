# RegViT-Small: ViT with four register tokens.
_base_ = ['vit_small.py']

backbone = dict(num_registers=4)
pretrained = dict(checkpoint='work_dirs/regvit_small_imagenet/epoch_300.pth')
