"""Holds the task images: pictures of one's own, and a trained classifier of timm or torchvision."""
