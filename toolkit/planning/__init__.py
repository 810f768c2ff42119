"""From a budget to a recipe: tables of what every change costs and loses, the search over them, and what it found."""
