"""Measures models: multiply-adds, latency, memory and shares of time, and the environment of the measurement."""
