"""Writes models in other formats and proves that the files compute what the models do."""
