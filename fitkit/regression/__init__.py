"""A network from named keypoints to parameters: what it sees, what it says, and how sure it is."""
