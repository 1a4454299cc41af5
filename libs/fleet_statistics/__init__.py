"""Estimates and tests that several services use: intervals, paired tests, ratings, preferences. Pure; numpy alone."""
