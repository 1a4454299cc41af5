"""What adapters are trained on: records, where they come from, and the immutable data sets frozen from them."""
