"""What `make_pictures.py` draws: people, clothes, backdrops."""
