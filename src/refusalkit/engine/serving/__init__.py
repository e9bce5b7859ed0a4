"""Where the model under test runs while a session works: a server of one's own, a Ray cluster."""
