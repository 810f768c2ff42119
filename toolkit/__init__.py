"""Compress trained PyTorch models in depth and in width. The public names are those of `__init__.pyi`.

Each is imported when it is first used (SPEC 1 of Scientific Python), so that what needs no torch starts at once.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
