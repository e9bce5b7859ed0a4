"""Working through a run: open tasks, the runner, budgets, sessions and estimates."""
