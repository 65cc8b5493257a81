"""Training of the learned pose priors from motion capture; see `tools/train_pose_prior.py`."""
