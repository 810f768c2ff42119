"""Holds what all pages are drawn with: HTML, words, figures and interactive plots."""
