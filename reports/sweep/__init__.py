"""The table and figure of a sweep."""
