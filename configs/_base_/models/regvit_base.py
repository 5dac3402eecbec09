# RegViT-Base: ViT with four register tokens.
_base_ = ['vit_base.py']

backbone = dict(num_registers=4)
pretrained = dict(checkpoint='work_dirs/regvit_base_imagenet/epoch_300.pth')
