"""Builds models of torchvision, timm and transformers by name, with made-up inputs."""
