"""Priors over pose and shape: learned and analytic."""
