"""Evaluator: owns golden data sets and evaluations.

Consumes AdapterRegistered, AdapterActivated and EvaluationRequested; publishes EvaluationScored, EvaluationFailed,
RegressionDetected and GoldenDatasetPublished.
"""
