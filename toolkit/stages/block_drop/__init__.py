"""The stage `block_drop`: removes whole residual blocks, the least important one per round."""
