"""Stand-ins: modules that may stand in a compressed model where a block stood, from a closed list."""
