# The demo's ViT with four register tokens.
_base_ = ['demo_vit.py']

backbone = dict(num_registers=4)
