# RegViT-Tiny: ViT with four register tokens.
_base_ = ['vit_tiny.py']

backbone = dict(num_registers=4)
pretrained = dict(checkpoint='work_dirs/regvit_tiny_imagenet/epoch_300.pth')
