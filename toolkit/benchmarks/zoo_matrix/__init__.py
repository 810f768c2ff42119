"""The zoo matrix: every model cut in every order, reloaded, exported and tabulated."""
