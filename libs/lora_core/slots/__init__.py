"""Many adapters at once: their memory, the plan of a batch, and the forward functions that apply both."""
