"""Fitting recipes shipped as yaml files."""
