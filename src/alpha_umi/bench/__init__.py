"""What training and inference cost, as ratios between two ways of doing the same work on the same machine."""
