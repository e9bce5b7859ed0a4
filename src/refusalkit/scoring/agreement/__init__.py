"""How far judges and people agree: kappa, alpha, pairs of judges, the votes of a council."""
