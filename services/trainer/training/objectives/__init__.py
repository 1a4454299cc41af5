"""What a training minimises: one file an objective, and what all of them share."""
