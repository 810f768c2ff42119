"""Tasks: a model, its data and its metric, behind one protocol; a card says what can be known without torch."""
