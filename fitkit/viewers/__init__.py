"""Pictures of results: bodies over their photo, keypoints, and a view from the side."""
