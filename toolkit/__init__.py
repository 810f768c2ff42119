"""Compresses trained PyTorch models in depth and in width. The public names are listed in `__init__.pyi`.

Each public name is imported when it is first used (SPEC 1 of Scientific Python), so that a program that needs no torch
starts at once.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
