"""Holds the task zoo: any model of a public zoo on made-up inputs, compared with itself."""
