"""The CIFAR-10 benchmark: depth, width and both on pretrained ResNets, beside controls, without and with training."""
