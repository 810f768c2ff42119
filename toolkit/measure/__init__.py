"""Multiply-adds, latency, shares of time, and the environment that they were measured in."""
