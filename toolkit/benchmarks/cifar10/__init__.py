"""Measures depth, width and both on pretrained CIFAR-10 ResNets, beside controls, without and with training."""
