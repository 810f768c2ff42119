"""Makes the zoo matrix: cuts every model in every order, reloads and exports it, and tabulates the results."""
