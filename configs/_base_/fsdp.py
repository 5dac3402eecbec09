# Parameters, gradients and optimizer state are sharded over all devices. Add it to any leaf:
# _base_ = ['LEAF.py', '../_base_/fsdp.py']. The checkpoints are those of the leaf.
runner_type = 'FlexibleRunner'
strategy = dict(type='locat_mm.FullyShardStrategy')
