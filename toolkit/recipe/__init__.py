"""Recipes: read, checked, composed, estimated and described, all without torch."""
