"""The steps of baking the embedded body; `tools/bake_body.py` runs them in order."""
