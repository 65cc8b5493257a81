"""Parametric bodies: pure linear blend skinning and the SMPL family's models."""
