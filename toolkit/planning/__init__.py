"""Plans a recipe for a budget: the budget, the tables, the search, and the measurements that fill the tables."""
