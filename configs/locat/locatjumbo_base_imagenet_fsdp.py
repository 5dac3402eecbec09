_base_ = ['./locatjumbo_base_imagenet.py', '../_base_/fsdp.py']
