"""The stage `align`: cross-depth alignment with a teacher, block by block."""
