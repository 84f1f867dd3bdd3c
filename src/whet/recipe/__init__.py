"""Several steps: recipes and their runner; and the verbs that do one thing."""
