"""Working through a run: what is owed, the runner, budgets, sessions and estimates."""
