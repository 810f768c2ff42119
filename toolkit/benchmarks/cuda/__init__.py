"""The CUDA benchmark: depth against width at equal multiply-adds, timed on a GPU, and what a GPU is needed to check."""
