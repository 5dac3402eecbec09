# Parameters, gradients and optimizer state spread over all devices. Goes beside any leaf:
# _base_ = ['LEAF.py', '../_base_/fsdp.py']. Its checkpoints are those of the leaf.
custom_imports = dict(imports=['locat_mm.engine.sharding'])
runner_type = 'FlexibleRunner'
strategy = dict(type='FullyShardStrategy')
