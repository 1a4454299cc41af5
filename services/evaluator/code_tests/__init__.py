"""Golden samples whose answers are code that must run: a sample's tests, run on an answer in the sandbox."""
