"""Plans a recipe for a budget: budget, tables, search, and what is measured for them."""
