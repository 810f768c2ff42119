"""The loop that applies the stages of a recipe and measures after each."""
