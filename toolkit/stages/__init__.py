"""The stages of a recipe, one folder each: settings (without torch) and what they do."""
