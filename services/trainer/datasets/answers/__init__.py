"""Answers that the fleet gave, what people think of them, and the live records that follow from both."""
