"""Completion: the model under test and the back ends that speak to providers."""
