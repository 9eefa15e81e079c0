"""How the three pocket models are made: recipes, text, network, training, report."""
