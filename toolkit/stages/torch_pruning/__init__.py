"""The stage `torch_pruning`: a control that cuts channels with torch-pruning's own pruner."""
