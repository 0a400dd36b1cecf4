"""Training: the nano backbone, the global stage and the local stage."""
