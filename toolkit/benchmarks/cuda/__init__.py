"""Times depth against width at equal multiply-adds on a GPU, and makes the checks that need a GPU."""
