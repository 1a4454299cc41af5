"""Golden data sets: held-out samples, their versions, and what is published of them."""
