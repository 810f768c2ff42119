"""Width: finds which channels hang together, cuts them, and proves every cut."""
