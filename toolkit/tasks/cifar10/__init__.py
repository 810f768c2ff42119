"""Holds the tasks cifar10-resnet20, -32 and -44: pretrained residual networks on CIFAR-10."""
