"""Evaluator: owns golden data sets and evaluations.

Publishes SubjectErased, EvaluationRequested, GoldenDatasetPublished, EvaluationScored, EvaluationFailed,
RegressionDetected.
Consumes AdapterRegistered, EvaluationRequested, AdapterActivated, AdapterReleased.
"""
