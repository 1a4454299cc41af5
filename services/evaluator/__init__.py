"""Evaluator: owns golden data sets and evaluations.

Publishes EvaluationRequested, GoldenDatasetPublished, EvaluationScored, EvaluationFailed, RegressionDetected,
ApiKeysUsed.
Consumes AdapterRegistered, EvaluationRequested, AdapterActivated, AdapterReleased.
Follows ApiKeyCreated, ApiKeyRevoked, TokenRevoked.
"""
