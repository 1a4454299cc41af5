"""Evaluator: owns golden data sets and evaluations.

Hears AdapterRegistered and EvaluationRequested; says EvaluationScored, EvaluationFailed, RegressionDetected and
GoldenDatasetPublished.
"""
