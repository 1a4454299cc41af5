"""Evaluator: owns golden data sets and evaluations.

Publishes EvaluationRequested, GoldenDatasetPublished, EvaluationScored, EvaluationFailed, RegressionDetected.
Consumes AdapterRegistered, EvaluationRequested, AdapterActivated, AdapterReleased.
"""
